"""Which folder above a photo is called like its person. Parts of a collection (`train`, `images`) and dates are not."""

import logging
import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

from iy import names

SPLITS = frozenset(
    "train training trainset test testing testset val valid validation valset dev eval fold part split subset".split()
)
PARTS = SPLITS | frozenset(
    "set image images img imgs photo photos picture pictures data dataset face faces people person persons portrait "
    "portraits".split()
)
WORD = re.compile(r"[^\W\d_]+")
DATE = re.compile(r"(19|20)\d\d([-_. ]?\d\d){0,2}")
MONTH = re.compile(r"\d\d?")  # or a day, below a date
log = logging.getLogger(__name__)
Folders = tuple[str, ...]  # above a photo, from the outermost


def dated(several: Iterable[Folders]) -> bool:
    """Are the photos sorted by date? Only if every outermost folder is called like one: 2019 may be a person's number,
    where others are not."""
    outermost = {folders[start] for folders in several if (start := after_parts(folders)) < len(folders)}
    return bool(outermost) and all(DATE.fullmatch(names.clean(one)) for one in outermost)


def after_parts(folders: Folders, start: int = 0) -> int:
    while start < len(folders) and is_part(folders[start]):
        start += 1
    return start


@lru_cache(4096)
def is_part(folder: str) -> bool:
    """Does the name only say which part of a collection it is? train, test_images, fold 2; but person_2 is somebody."""
    words = set(WORD.findall(folder.casefold()))
    numbered = any(letter.isdigit() for letter in folder)
    return bool(words) and words <= (SPLITS | {"set"} if numbered else PARTS) and not (numbered and words == {"set"})


def level(folders: Folders, by_date: bool) -> int:
    """Where in `folders` the person stands; their number where none does."""
    start = after_parts(folders)
    if by_date and start < len(folders) and DATE.fullmatch(names.clean(folders[start])):
        start += 1
        while start < len(folders) and MONTH.fullmatch(folders[start]):
            start += 1
    return after_parts(folders, start)


def person(folders: Folders, by_date: bool) -> str | None:
    at = level(folders, by_date)
    return names.clean(folders[at]) or None if at < len(folders) else None


def tell(several: Iterable[Folders], by_date: bool, place: str) -> None:
    """Say what the persons are called and at which level, and above which folders."""
    above: dict[int, set[str]] = {}
    called: dict[int, set[str]] = {}
    within: set[str] = set()  # folders right below the persons'
    without: Counter[str] = Counter()  # photos right in folders that are called like no person
    for folders in several:
        at = level(folders, by_date)
        above.setdefault(at, set()).update(folders[:at])
        if at < len(folders):
            called.setdefault(at, set()).add(names.clean(folders[at]))
            within.update(folders[at + 1 : at + 2])
        elif folders:
            without["/".join(folders)] += 1
    for at, found in sorted(called.items()):
        below = f", below {some(above[at])}" if above[at] else ""
        say(f"{len(found)} persons are called by the folders of level {at + 1}{below} in {place}: {some(found)}")
    if without:
        say(
            f"{without.total()} photos lie in folders that are not called like a person, and have none, in {place}: "
            f"{some(set(without))}; a folder within, or a sidecar, may name one"
        )
    if sum(map(len, called.values())) == 1 and len(within) > 1:
        say(
            f"all are of one person: if {some(within)} are persons, name the folder that they lie in instead of {place}"
        )
    by_spelling: dict[str, set[str]] = {}
    for one in set().union(*called.values()):
        by_spelling.setdefault(names.folded(one), set()).add(one)
    for alike in by_spelling.values():
        if len(alike) > 1:
            say(f"{some(alike)} are different persons here: if they are one, give them one spelling")


def some(found: set[str]) -> str:
    shown = sorted(found)
    return ", ".join(shown[:5]) + (", …" if len(shown) > 5 else "")


@lru_cache(64)
def say(text: str) -> None:
    log.info("photos: %s", text)
