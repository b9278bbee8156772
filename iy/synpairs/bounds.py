"""Similarity bounds from people whose identity is known: how often would this bound take two persons for one?

Genuine similarities compare two photos of one person, impostor similarities two photos of different persons. The paper
gives no threshold; ours (choice) is the smallest that at most `false_match_rate` of the impostors reach. Above the
upper bound, a high quantile of the genuine ones, a synthetic image is as good as a copy of its reference.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score

from iy.faces.recognise import unit

CURVE_POINTS = 101


@dataclass(frozen=True)
class Bounds:
    """Cosine similarities between which a pair is accepted, ends included; both ends in [-1, 1]."""

    lower: float
    upper: float


def similarities(left: np.ndarray, right: np.ndarray, people: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Genuine and impostor cosines of embeddings (N, D) x (N, D); photo i belongs to people[i].

    `left` holds photos as references, `right` the same photos as targets; a photo is never compared with itself.
    """
    cosines = unit(left) @ unit(right).T
    person = np.asarray(people)
    same = person[:, None] == person[None]
    other_photo = ~np.eye(len(person), dtype=bool)
    return cosines[same & other_photo], cosines[~same]


def lower_bound(impostor: np.ndarray, false_match_rate: float) -> float:
    """The smallest bound that at most this share of impostors reaches; a rate of 1 means no bound."""
    if false_match_rate >= 1 or not len(impostor):
        return -1.0
    ordered = np.sort(impostor)
    allowed = int(false_match_rate * len(ordered) + 1e-9)  # impostors that may pass
    return float(np.nextafter(ordered[len(ordered) - allowed - 1], 2))


def bounds(genuine: np.ndarray, impostor: np.ndarray, false_match_rate: float, upper_quantile: float) -> Bounds:
    """Lower bound by the impostors' tail, upper bound by the genuine ones' quantile, never below the lower."""
    lower = lower_bound(impostor, false_match_rate)
    upper = float(np.quantile(genuine, upper_quantile)) if len(genuine) else 1.0
    return Bounds(lower, max(lower, upper))


def auc(genuine: np.ndarray, impostor: np.ndarray) -> float | None:
    """Chance that a genuine pair is more similar than an impostor pair, ties half; None without both."""
    if not len(genuine) or not len(impostor):
        return None
    same = np.repeat([1, 0], [len(genuine), len(impostor)])
    return float(roc_auc_score(same, np.concatenate([genuine, impostor])))


def reaching(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Share of `values` at or above each threshold."""
    return 1 - np.searchsorted(np.sort(values), thresholds, "left") / max(len(values), 1)


def summary(
    genuine: np.ndarray, impostor: np.ndarray, found: Bounds, false_match_rate: float, upper_quantile: float
) -> dict:
    """What bounds.json holds: bounds, counts, how well the recogniser separates, and the two curves."""
    everything = np.concatenate([genuine, impostor])
    low, high = (float(everything.min()), float(everything.max())) if len(everything) else (-1.0, 1.0)
    thresholds = np.linspace(low, high, CURVE_POINTS)

    def rounded(values: np.ndarray) -> list[float]:
        return [round(float(value), 6) for value in values]

    at_bound = np.array([found.lower])
    return {
        "lower": round(found.lower, 6),
        "upper": round(found.upper, 6),
        "false_match_rate_asked": false_match_rate,
        "upper_quantile": upper_quantile,
        "false_match_rate": rounded(reaching(impostor, at_bound))[0],
        "true_match_rate": rounded(reaching(genuine, at_bound))[0],
        "genuine": {"count": len(genuine), "median": median(genuine)},
        "impostor": {"count": len(impostor), "median": median(impostor)},
        "auc": None if (area := auc(genuine, impostor)) is None else round(area, 6),
        "curve": {
            "threshold": rounded(thresholds),
            "false_match": rounded(reaching(impostor, thresholds)),
            "true_match": rounded(reaching(genuine, thresholds)),
        },
    }


def median(values: np.ndarray) -> float | None:
    return round(float(np.median(values)), 6) if len(values) else None
