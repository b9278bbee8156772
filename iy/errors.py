"""The one kind of error a user can cause and mend, and how others are told."""


class UserError(Exception):
    """Bad input. The message, shown without a traceback, is one sentence naming the file, key or row and the remedy."""


class Unreachable(UserError):
    """A network or a store does not answer now: the same may work later, without a change by the user."""


def one_line(error: object, longest: int = 200) -> str:
    """What an error says, on one line of at most `longest` characters; its kind where it says nothing."""
    return " ".join(str(error).split())[:longest] or type(error).__name__
