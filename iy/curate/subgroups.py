"""Do the recogniser's thresholds mean the same for everybody? Each group of gender, age or skin that the source names.

Compared within a group, people are more alike than all are: a threshold chosen on everybody lets more of them pass for
each other. Both are given: what everybody's threshold does in the group, and the threshold the group would need.
"""

import json
from typing import NamedTuple

import numpy as np

ATTRIBUTES = ("gender", "age", "skin")


class Scores(NamedTuple):
    """Cosines of all pairs of photos of one group, of the same person and of two."""

    genuine: np.ndarray
    impostor: np.ndarray


def scores(rows: list[dict], person: np.ndarray, cosine: np.ndarray) -> dict[str, dict[str, Scores]]:
    """By attribute and value, as far as photos (N) carry it and show two persons and one of them twice.

    person (N,), cosine (N, N).
    """
    said = [json.loads(row.get("attributes") or "{}") for row in rows]
    found: dict[str, dict[str, Scores]] = {}
    for name in ATTRIBUTES:
        values = np.array([str(one.get(name, "")) for one in said])
        for value in sorted(set(values) - {""}):
            here = np.flatnonzero(values == value)
            first, second = np.triu_indices(len(here), 1)
            same, pairs = person[here[first]] == person[here[second]], cosine[here[first], here[second]]
            if same.any() and not same.all():
                found.setdefault(name, {})[value] = Scores(pairs[same], pairs[~same])
    return found


def at(scores: Scores, rate: float, everybody: float) -> dict[str, float]:
    """At everybody's threshold, the share of false and of true matches; and the group's own threshold for `rate`."""
    return {
        "false_match": float((scores.impostor >= everybody).mean()),
        "true_match": float((scores.genuine >= everybody).mean()),
        "own_threshold": float(np.quantile(scores.impostor, 1 - rate)),
    }
