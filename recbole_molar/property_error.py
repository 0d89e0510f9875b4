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
        self.key, self.text, self.others, self.places = key, text, tuple(others), {}

    def locate(self, origins):
        """Take over where the values stand, unless that is known; origins (dict): key -> file and line, or `COMMAND_LINE`."""
        self.places = self.places or {key: origins[key] for key in (self.key, *self.others) if key in origins}
        return self

    def renamed(self, prefix):
        """The error with a prefix before its keys: `id_` for those of the ID model."""
        self.text = prefix + self.text
        for key in self.others if prefix else ():
            self.text = self.text.replace(f" {key}=", f" {prefix}{key}=")
        self.places = {prefix + key: place for key, place in self.places.items()}
        self.key, self.others = prefix + self.key, tuple(prefix + key for key in self.others)
        return self

    def __str__(self):
        if self.others and self.places:
            return f"{self.text} ({'; '.join(f'{key}: {place}' for key, place in self.places.items())})"
        place = self.places.get(self.key)
        return f"--{self.text}" if place == COMMAND_LINE else f"{place}: {self.text}" if place else self.text


def bad_value(key, value, why):
    """The PropertyError of one key and its value; why (str): "must be ...", or what is wrong, and what to do."""
    return PropertyError(key, f"{key}={value}: {why}")


class UnknownPropertyError(PropertyError):
    """A key that no part of this run reads."""
