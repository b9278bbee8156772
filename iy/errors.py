"""The one kind of error a user can cause and mend."""


class UserError(Exception):
    """Bad input. The message is one clear sentence naming the file, key or row and the remedy; shown without a traceback."""
