"""How similar photos of one person are, and of two: what every later threshold on this recogniser is read from."""
import numpy as np
from sklearn.metrics import roc_auc_score

from iy.errors import UserError
from iy.faces.recognise import unit
from iy.records import accepted

RATES = (.001, .01, .05, .1)         # false-match rates
QUANTILES = (.01, .05, .1, .25, .5, .75, .9, .95, .99)
MAXIMUM = 3000                       # photos compared all with all
DIGITS = 6


def calibrate(rows: list[dict]) -> tuple[dict, np.ndarray, np.ndarray]:
    """The content of calibration.json, and the genuine and impostor similarities it came from.

    Test persons are left out. Where persons were grouped by this same recogniser, genuine scores are what the grouping
    let through: `labels` says so.
    """
    rows = [row for row in accepted(rows) if row["split"] != "test"]
    rows = [rows[i] for i in np.linspace(0, len(rows) - 1, min(len(rows), MAXIMUM)).astype(int)]
    person = np.unique([row["person"] for row in rows], return_inverse=True)[1]
    faces = np.array([row["embedding"] for row in rows], np.float64)
    first, second = np.triu_indices(len(rows), 1)
    same = person[first] == person[second]
    cosine = (unit(faces) @ unit(faces).T)[first, second]
    square = (faces ** 2).sum(1)
    distance = np.sqrt(np.maximum(square[:, None] + square - 2 * faces @ faces.T, 0))[first, second]
    genuine, impostor = cosine[same], cosine[~same]
    if not len(genuine) or not len(impostor):
        raise UserError("curate: the recogniser cannot be calibrated: outside the test split, two persons and one "
                        "person with two photos are needed: add photos, or set curate.minimum_per_person to 2")
    named = all(row["label"] == row["person"] for row in rows)
    found = {"recogniser": rows[0]["recogniser"], "labels": "source" if named else "grouped by this recogniser",
             "photos": len(rows), "persons": int(person.max()) + 1, "auc": rounded(roc_auc_score(same, cosine)),
             "genuine": summary(genuine), "impostor": summary(impostor),
             "distance": {"genuine_median": rounded(np.median(distance[same])),
                          "impostor_median": rounded(np.median(distance[~same]))},
             "false_match": {str(rate): at_rate(genuine, impostor, rate) for rate in RATES}}
    return found, genuine, impostor


def summary(values: np.ndarray) -> dict:
    return {"n": len(values), "mean": rounded(values.mean()), "std": rounded(values.std()),
            "median": rounded(np.median(values)),
            "quantiles": {str(q): rounded(np.quantile(values, q)) for q in QUANTILES}}


def at_rate(genuine: np.ndarray, impostor: np.ndarray, rate: float) -> dict:
    """The similarity that a share `rate` of different persons reaches, and the share of same-person pairs that do."""
    threshold = float(np.quantile(impostor, 1 - rate))
    return {"threshold": rounded(threshold), "true_match": rounded((genuine >= threshold).mean())}


def rounded(value: float) -> float:
    return round(float(value), DIGITS)
