"""Photos that image classifiers refuse: nudity, watermarks, age …

Each is told with its probability and the setting that says so. One process asks the classifiers, after the photos were
measured and before copies and persons are looked for, part by part: a refused photo is nobody's best copy, and a stage
that was interrupted goes on after its last part.
"""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from tqdm import tqdm

from iy import records, resume
from iy.curate.filters import reject
from iy.faces.crop import face_crop
from iy.params import Params
from iy.records import ACCEPTED
from iy.storage import read_image

if TYPE_CHECKING:
    from iy.curate.classifier import Classifier

BATCH = 32  # photos in memory, and asked about at a time
MARGIN = 1.5  # side of a face's crop, in face-box sides: as FairFace, which age classifiers learn from, cuts them
DIGITS = 4  # of a probability


def opened(settings: Params) -> dict[str, "Classifier"]:
    """The classifiers that the settings name, in their order."""
    if not settings.curate.classifiers:
        return {}
    from iy.curate.classifier import Classifier
    from iy.device import choose_device

    return {
        name: Classifier(name, one, BATCH, choose_device(settings.device))
        for name, one in settings.curate.classifiers.items()
    }


def classify(
    settings: Params, classifiers: dict[str, "Classifier"], folder: Path, parts: list[Path], work: Path
) -> list[Path]:
    """The measured parts with the classifiers' scores and verdicts, in `work`; those already there are kept.

    folder: the photos'.
    """
    if not classifiers:
        return parts
    named = settings.resolved()["curate"]["classifiers"]
    place = resume.place(work, "classified", [one["model"] for one in named.values()], list(named.items()))
    done = [place / part.name for part in parts]
    with ThreadPoolExecutor(settings.workers.count) as readers:

        def read(rows: list[dict]) -> list[np.ndarray]:
            return list(readers.map(partial(read_image, folder), rows))

        for part, path in zip(parts, tqdm(done, "classifiers", mininterval=1, delay=1), strict=True):
            if not path.exists():
                records.write(path, judged(records.read(part, records.PHOTO), classifiers, read), records.PHOTO)
    return done


def judged(
    rows: list[dict], classifiers: dict[str, "Classifier"], read: Callable[[list[dict]], list[np.ndarray]]
) -> list[dict]:
    """The rows; those accepted so far with their scores, and rejected by the first classifier that refuses them.

    The classifiers after that one are not asked. read: the photos of some rows.
    """
    rows, asked = list(rows), [i for i, row in enumerate(rows) if row["verdict"] == ACCEPTED]
    for start in range(0, len(asked), BATCH):
        some = asked[start : start + BATCH]
        images = dict(zip(some, read([rows[i] for i in some]), strict=True))
        for name, classifier in classifiers.items():
            left = [i for i in some if rows[i]["verdict"] == ACCEPTED]
            shown = [shown_of(images[i], rows[i], classifier.settings.input) for i in left]
            for i, probability in zip(left, classifier(shown), strict=True):
                rows[i] = scored(rows[i], name, round(probability, DIGITS), classifier.settings.maximum)
    return rows


def shown_of(image: np.ndarray, row: dict, kind: Literal["photo", "face"]) -> np.ndarray:
    """What a classifier sees of a photo uint8 RGB (H, W, 3).

    All of it, or a square around the face at the photo's scale.
    """
    if kind == "photo":
        return image
    x0, y0, x1, y1 = row["box"]
    return face_crop(image, row["box"], row["landmarks"], round(MARGIN * max(x1 - x0, y1 - y0)), MARGIN, mask=False)


def scored(row: dict, name: str, probability: float, maximum: float) -> dict:
    row = row | {"scores": json.dumps(json.loads(row["scores"] or "{}") | {name: probability})}
    if probability <= maximum:
        return row
    return reject(row, f"{name}: probability {probability:.{DIGITS}f}, curate.classifiers.{name}.maximum is {maximum}")
