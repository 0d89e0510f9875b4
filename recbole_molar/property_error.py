"""The error of a property that cannot be as it is: it knows the key, and says where its value stands once a Config has told it."""

COMMAND_LINE = "command line"


class PropertyError(ValueError):
    """A property's value is none that it may have, or does not go with another.

    Args:
        key (str): the property. text (str): what is wrong, `key=value: must be ...`.
        others (sequence of str): where several do not go together, the other ones.
    """

    def __init__(self, key, text, others=()):
        super().__init__(text)
        self.key, self.text, self.others, self.origin = key, text, tuple(others), None

    def locate(self, origins):
        """Take over where the values stand, unless that is known; origins (dict): key -> file and line, or `COMMAND_LINE`."""
        if self.others:
            found = [f"{key}: {origins[key]}" for key in (self.key, *self.others) if key in origins]
            self.origin = self.origin or "; ".join(found)
        else:
            self.origin = self.origin or origins.get(self.key)
        return self

    def renamed(self, prefix):
        """The error with a prefix before its keys: `id_` for those of the ID model."""
        self.key, self.text = prefix + self.key, prefix + self.text
        for key in self.others if prefix else ():
            self.text = self.text.replace(f" {key}=", f" {prefix}{key}=")
        self.others = tuple(prefix + key for key in self.others)
        return self

    def __str__(self):
        if self.others:
            return f"{self.text} ({self.origin})" if self.origin else self.text
        return f"--{self.text}" if self.origin == COMMAND_LINE else f"{self.origin}: {self.text}" if self.origin else self.text


class UnknownPropertyError(PropertyError):
    """A key that no part of this run reads."""
