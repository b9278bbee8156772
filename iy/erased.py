"""Photographs that must not be used any more, whatever the source still holds: erasures/erased.txt, which `iy erase`
writes and git keeps. A line is the SHA-256 of a photo's id, itself one of its bytes: the photo is known when it comes
again, and the list says nothing of it. What cannot be read has an id of its place's name instead, which is known in
each of Unicode's ways of writing it.

What the list has ever said here is kept under `.iy` too: an older version of it, which a checkout of git or
`dvc exp apply` brings back, undoes no erasure.
"""

import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

from iy import project
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
    """The marks of the list, and those that it had before."""
    return listed(LIST, "restore the file from git") | listed(remembered(), "delete the file")


def remembered() -> Path:
    return project.state() / "erased.txt"


def listed(file: Path, remedy: str) -> set[str]:
    if not file.exists():
        return set()
    marks = file.read_text(encoding="ascii", errors="replace").split()
    for number, one in enumerate(marks, 1):
        if len(one) != 64 or not set(one) <= set("0123456789abcdef"):
            raise UserError(f"{file}, entry {number}: {one[:20]!r} is no SHA-256: {remedy}")
    return set(marks)


def keep(say: Callable[[str], None]) -> None:
    """Before a run: remember what the list says, and put back into it what it has lost."""
    marks = read()
    if marks - listed(remembered(), ""):
        write(remembered(), marks)
    if lost := marks - listed(LIST, ""):
        write(LIST, marks)
        say(f"{LIST} was an older one, without {len(lost)} erased photos: they are in it again, commit it")


def add(photos: Iterable[str]) -> None:
    """Never to be used again: the photos of these ids."""
    marks = read() | {mark(photo) for photo in photos}
    write(remembered(), marks)
    write(LIST, marks)


def write(file: Path, marks: set[str]) -> None:
    write_bytes(file, "".join(f"{one}\n" for one in sorted(marks)).encode())
