"""Names of persons and sources: one spelling of each, and which ones are nearly the same."""

import unicodedata
from collections.abc import Iterable
from difflib import SequenceMatcher

INVISIBLE = dict.fromkeys(map(ord, "\ufeff\u200b\u2060\u00ad"))  # byte-order mark, zero-width and soft characters
NEAR = 0.84  # share of equal letters


def clean(name: str) -> str:
    """A name as it is kept: composed letters (NFC), no outer white space, single spaces within."""
    return " ".join(unicodedata.normalize("NFC", name.translate(INVISIBLE)).split())


def folded(name: str) -> str:
    """Of a name what stays when case, accents, spaces and signs are left out."""
    letters = unicodedata.normalize("NFKD", clean(name)).casefold()
    return "".join(one for one in letters if one.isalnum())


def near(name: str, others: Iterable[str]) -> list[str]:
    """The `others` that are not `name` but may be meant by it: spelt alike, or by a letter otherwise."""
    own = folded(name)
    return sorted({one for one in others if clean(one) != clean(name) and alike(own, folded(one))})


def alike(one: str, other: str) -> bool:
    if not one or not other:
        return False
    if one == other:
        return True
    if digits(one) != digits(other):  # studio-7 and studio-8 are two persons
        return False
    return SequenceMatcher(None, one, other, autojunk=False).ratio() >= NEAR


def digits(name: str) -> str:
    return "".join(letter for letter in name if letter.isdigit())
