"""Photographs that must not be used any more, whatever the source still holds: erasures/erased.txt, which `iy erase`
writes and git keeps. A line is the SHA-256 of a photo's id, itself one of its bytes: the photo is known when it comes
again, and the list says nothing of it. What cannot be read has an id of its place's name instead, which is known in
each of Unicode's ways of writing it.
"""

import unicodedata
from collections.abc import Iterable
from pathlib import Path

from iy.errors import UserError
from iy.storage import sha256, write_bytes

LIST = Path("erasures", "erased.txt")


def mark(photo: str) -> str:
    """What stands in the list for a photo's id."""
    return sha256(photo.encode())


def marks(photo: str, place: str) -> set[str]:
    """The marks that a photo may stand under: its id's, and of one that is known by its place alone, those of the place
    in every spelling."""
    spelt = {sha256(unicodedata.normalize(form, place).encode()) for form in ("NFC", "NFD")} | {sha256(place.encode())}
    return {mark(one) for one in (spelt if photo in spelt else {photo})}


def read() -> set[str]:
    """The list's marks; none where there is no list."""
    if not LIST.exists():
        return set()
    marks = LIST.read_text(encoding="ascii", errors="replace").split()
    for number, one in enumerate(marks, 1):
        if len(one) != 64 or not set(one) <= set("0123456789abcdef"):
            raise UserError(f"{LIST}, entry {number}: {one[:20]!r} is no SHA-256: restore the file from git")
    return set(marks)


def add(photos: Iterable[str]) -> None:
    """Never to be used again: the photos of these ids."""
    write_bytes(LIST, "".join(f"{one}\n" for one in sorted(read() | {mark(photo) for photo in photos})).encode())
