"""How similar photos of one person are, and of two: what every later threshold on this recogniser is read from."""

from collections import defaultdict

import numpy as np
from sklearn.metrics import roc_auc_score

from iy.curate import subgroups
from iy.curate.collection import Collection
from iy.errors import UserError
from iy.faces.recognise import unit

RATES = (0.001, 0.01, 0.05, 0.1)  # false-match rates
QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
RESAMPLES = 2000  # of the persons, for intervals
MAXIMUM = 3000  # photos compared all with all
DIGITS = 6


def chosen(photos: Collection) -> list[int]:
    """The photos to calibrate with: at most about `MAXIMUM`, of persons evenly from all that are not for testing.

    These persons are taken whole: from single photos of many nobody could tell how alike one person's are.
    """
    people: dict[str | None, list[int]] = defaultdict(list)
    for i in photos.kept():
        if photos.split[i] != "test":
            people[photos.person[i]].append(i)
    photos_of = [own[: MAXIMUM // 2] for own in people.values()]
    share = min(1.0, MAXIMUM / max(1, sum(map(len, photos_of))))
    some = np.linspace(0, len(people) - 1, min(len(people), max(2, round(share * len(people))))).astype(int)
    return sorted(i for k in some for i in photos_of[k])


def calibrate(rows: list[dict]) -> tuple[dict, np.ndarray, np.ndarray]:
    """The content of calibration.json, and the genuine and impostor similarities of all pairs of these rows.

    Where persons were grouped by this same recogniser, genuine scores are what the grouping let through: `labels` says
    so. `subgroups`: the same thresholds among people of one gender, age or skin, where the source names them.
    """
    person = np.unique([row["person"] for row in rows], return_inverse=True)[1]
    faces = np.array([row["embedding"] for row in rows], np.float64)
    first, second = np.triu_indices(len(rows), 1)
    same = person[first] == person[second]
    alike = unit(faces) @ unit(faces).T
    cosine, groups = alike[first, second], subgroups.scores(rows, person, alike)
    square = (faces**2).sum(1)
    distance = np.sqrt(np.maximum(square[:, None] + square - 2 * faces @ faces.T, 0))[first, second]
    genuine, impostor = cosine[same], cosine[~same]
    if not len(genuine) or not len(impostor):
        raise UserError(
            "curate: the recogniser cannot be calibrated: outside the test split, two persons and one "
            "person with two photos are needed: add photos, or set curate.minimum_per_person to 2"
        )
    named = all(row["label"] == row["person"] for row in rows)
    match = Match(person, first, second, cosine)
    found = {
        "recogniser": rows[0]["recogniser"],
        "labels": "source" if named else "grouped by this recogniser",
        "photos": len(rows),
        "persons": int(person.max()) + 1,
        "auc": rounded(roc_auc_score(same, cosine)),
        "genuine": summary(genuine),
        "impostor": summary(impostor),
        "distance": {
            "genuine_median": rounded(np.median(distance[same])),
            "impostor_median": rounded(np.median(distance[~same])),
        },
        "false_match": {str(rate): at_rate(genuine, impostor, rate, match) for rate in RATES},
    }
    found["subgroups"] = {
        name: {value: of_group(scores, found["false_match"]) for value, scores in values.items()}
        for name, values in groups.items()
    }
    return found, genuine, impostor


def of_group(scores: subgroups.Scores, everybody: dict) -> dict:
    """A subgroup's numbers of pairs, and at each false-match rate what `subgroups.at` says."""
    rates = {rate: subgroups.at(scores, float(rate), found["threshold"]) for rate, found in everybody.items()}
    return {
        "genuine": len(scores.genuine),
        "impostor": len(scores.impostor),
        "false_match": {rate: {name: rounded(value) for name, value in found.items()} for rate, found in rates.items()},
    }


def summary(values: np.ndarray) -> dict:
    return {
        "n": len(values),
        "mean": rounded(values.mean()),
        "std": rounded(values.std()),
        "median": rounded(np.median(values)),
        "quantiles": {str(q): rounded(np.quantile(values, q)) for q in QUANTILES},
    }


def at_rate(genuine: np.ndarray, impostor: np.ndarray, rate: float, match: "Match") -> dict:
    """The similarity that a share `rate` of different persons reaches, and the share of same-person pairs that do.

    And between which false-match rates as many other persons are to be expected.
    """
    threshold = float(np.quantile(impostor, 1 - rate))
    low, high = match.interval(threshold)
    return {
        "threshold": rounded(threshold),
        "true_match": rounded((genuine >= threshold).mean()),
        "low": rounded(low),
        "high": rounded(high),
    }


class Match:
    """False matches person by person: pairs of photos are not independent, one look-alike gives dozens of them.

    person (N,): counted from 0; first, second (P,): the photos of each pair, cosine (P,): how similar they are.
    """

    def __init__(self, person: np.ndarray, first: np.ndarray, second: np.ndarray, cosine: np.ndarray) -> None:
        self.count, self.cosine = int(person.max()) + 1, cosine
        self.cell = person[first] * self.count + person[second]
        rng = np.random.default_rng(0)
        self.drawn = rng.multinomial(self.count, np.full(self.count, 1 / self.count), 2 * RESAMPLES).astype(float)
        self.pairs = self.table(np.ones(len(cosine)))

    def table(self, weight: np.ndarray) -> np.ndarray:
        """The sum of the pairs' weights (K, K) between every two different persons."""
        total = np.bincount(self.cell, weight, self.count**2).reshape(self.count, self.count)
        total = total + total.T
        np.fill_diagonal(total, 0)
        return total

    def resampled(self, table: np.ndarray) -> np.ndarray:
        """The table's sum (R,) in every resample of the persons."""
        return ((self.drawn @ table) * self.drawn).sum(1)

    def interval(self, threshold: float) -> tuple[float, float]:
        """Between which rates 95 % of collections of as many persons lie, this one's own chance counted in.

        Bootstrap over persons: the difference of two resamples around the rate here.
        """
        passed = self.table((self.cosine >= threshold).astype(float))
        rates = self.resampled(passed) / np.maximum(self.resampled(self.pairs), 1)
        here = passed.sum() / self.pairs.sum()
        low, high = here + np.quantile(rates[:RESAMPLES] - rates[RESAMPLES:], [0.025, 0.975])
        return max(0.0, float(low)), min(1.0, float(high))


def rounded(value: float) -> float:
    return round(float(value), DIGITS)
