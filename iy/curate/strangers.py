"""Photos under a wrong person's name: those that resemble somebody else's photos more than the rest of their own.

A person stands for the mean direction of their faces, as in a recogniser's gallery; the photo itself is left out, and
in the second round so is whoever was accused in the first. A face of nobody in the collection resembles some of all the
others more than the one it was given to, and is found too. Memory: `BLOCK` numbers, and a vector for each person.
"""

from typing import NamedTuple

import numpy as np

FEWEST = 2  # other photos of a person: from one alone nobody can tell which of two is wrong
ROUNDS, BLOCK = 2, 2**22  # BLOCK: similarities at a time


class Stranger(NamedTuple):
    """A photo's similarity to the rest of its own person, and to the person it resembles more."""

    own: float
    other: float
    resembles: str


def strangers(faces: np.ndarray, people: list[str]) -> dict[int, Stranger]:
    """By the number of the photo; faces (N, D) at length 1, people: the name that each was given."""
    names = sorted(set(people))
    number = {name: k for k, name in enumerate(names)}
    who, step = np.array([number[name] for name in people], int), max(1, BLOCK // max(1, len(names)))
    accused: dict[int, Stranger] = {}
    for _ in range(ROUNDS if len(names) > 1 else 0):
        trusted = np.ones(len(faces), bool)
        trusted[list(accused)] = False
        total, count = np.zeros((len(names), faces.shape[1])), np.bincount(who[trusted], minlength=len(names))
        np.add.at(total, who[trusted], faces[trusted])
        people_at = (total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)).astype(np.float32)
        accused = {}
        for start in range(0, len(faces), step):
            rows = np.arange(start, min(start + step, len(faces)))
            accused |= block(faces, rows, who, trusted, total, people_at, count, names)
    return accused


def block(
    faces: np.ndarray,
    rows: np.ndarray,
    who: np.ndarray,
    trusted: np.ndarray,
    total: np.ndarray,
    people_at: np.ndarray,
    count: np.ndarray,
    names: list[str],
) -> dict[int, Stranger]:
    some, mine = faces[rows], who[rows]
    rest = total[mine] - some * trusted[rows, None]
    enough = count[mine] - trusted[rows] >= FEWEST
    own = (some * rest).sum(1) / np.maximum(np.linalg.norm(rest, axis=1), 1e-12)
    others = some @ people_at.T
    others[np.arange(len(rows)), mine] = -1
    nearest = others.argmax(1)
    most = others[np.arange(len(rows)), nearest]
    return {
        int(rows[i]): Stranger(float(own[i]), float(most[i]), names[nearest[i]])
        for i in np.flatnonzero(enough & (most > own))
    }
