"""Why a picture is not to be had: exceptions whose `cause` is one of few short phrases, for a person to read and to count by."""


class Refused(Exception):
    """This picture will not come; `silent` says that its host gave no answer at all."""

    def __init__(self, cause, silent=False):
        super().__init__(cause)
        self.cause, self.silent = cause, silent


class Transient(Refused):
    """A failure that may pass; `wait` is what the server asks for, in seconds, or None."""

    def __init__(self, cause, wait=None, silent=False):
        super().__init__(cause, silent)
        self.wait = wait


class NotTried(Refused):
    """Left for another run: nothing is known of this picture itself."""
