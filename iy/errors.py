"""The kind of error a user can cause and mend."""


class UserError(Exception):
    """Bad input. The message is one clear sentence naming the file, key or row and the remedy, and shows alone."""


class Unreachable(UserError):
    """A network or a store does not answer now: the same may work later, without a change by the user."""
