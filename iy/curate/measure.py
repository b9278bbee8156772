"""What the face models and plain image statistics say about each photo, and whether it is good enough by itself.

One pass by several workers, some photos at a time: each part of the table is on disk when it is done, and a stage that
was interrupted goes on after its last part.
"""

import json
import logging
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import imagehash
import numpy as np
from PIL import Image
from tqdm import tqdm

from iy import records, workers
from iy.curate import captions, filters
from iy.faces import Analyser, Face, load_analyser, recogniser_name, rivals
from iy.faces.pose import pose
from iy.faces.sharpness import grey_face, sharpness
from iy.params import Params, parse
from iy.storage import read_image
from iy.tracking import Tell

ALONE = 100  # photos that are measured in the two seconds in which processes start
PART = SMALLEST, LARGEST = 16, 1000  # photos in one
BLACK, WHITE = 8, 247  # of 255
log = logging.getLogger(__name__)


class Part(NamedTuple):
    """Photos `start` to `stop` of the table in `folder`, to be measured by `settings` (JSON) into `path`."""

    path: Path
    folder: Path
    start: int
    stop: int
    settings: str


def measure(settings: Params, folder: Path, work: Path, tell: Tell) -> list[Path]:
    """The parts in `work` of the table in `folder`, rows in their order; those already there are kept."""
    load_analyser(
        settings.faces, settings.usage, settings.device
    )  # a missing pack is one sentence here, not a broken process pool
    with records.opened(folder / "photos.parquet", records.PHOTO) as file:
        count = file.metadata.num_rows
    text, size = json.dumps(settings.resolved()), part_size(count)
    parts = [
        Part(work / f"{start // size:05d}.parquet", folder, start, min(start + size, count), text)
        for start in range(0, count, size)
    ]
    missing = [part for part in parts if not part.path.exists()]
    if len(missing) < len(parts):
        log.info("curate: %d of %d parts are already there", len(parts) - len(missing), len(parts))
    with tqdm(total=sum(part.stop - part.start for part in missing), desc="faces", mininterval=1, delay=1) as bar:
        for done in workers.each(
            measure_part, missing, settings.workers, chunk=1, alone=1 if count > ALONE else len(parts)
        ):
            bar.update(done)
            tell({"photos_measured": bar.n}, bar.n)
    paths = [part.path for part in parts]
    workers.must_be_here(paths)
    return paths


def part_size(count: int) -> int:
    """Photos in a part: enough parts for several workers to end together, but no more of them than must be."""
    return min(LARGEST, max(SMALLEST, count // 64))


def measure_part(part: Part) -> int:
    """Measure and judge the photos of one part."""
    cv2.setNumThreads(1)
    settings, analyser = opened(part.settings)
    rows = records.rows(part.folder / "photos.parquet", records.PHOTO, part.start, part.stop)
    rows = [row | columns(read_image(part.folder, row), analyser) if row["shard"] is not None else row for row in rows]
    rows = [filters.judge(row, settings.curate, settings.usage) for row in rows]
    records.write(part.path, captions.refuse_silent(rows, settings.curate), records.PHOTO)
    return len(rows)


@cache
def opened(text: str) -> tuple[Params, Analyser]:
    settings = parse(json.loads(text), "settings")
    return settings, load_analyser(settings.faces, settings.usage, settings.device)


def columns(image: np.ndarray, analyser: Analyser) -> dict:
    """Columns of one photo uint8 RGB (H, W, 3).

    `faces` counts the largest and its rivals; far smaller bystanders do not count.
    """
    found = analyser.detect(image)
    row = {
        "faces": rivals(found),
        "phash": str(imagehash.phash(Image.fromarray(image))),
    }
    return row | of_face(image, found[0], analyser) if found else row


def of_face(image: np.ndarray, face: Face, analyser: Analyser) -> dict:
    yaw, pitch, roll = pose(face.landmarks)
    grey = grey_face(image, face)
    row = {
        "box": face.box.tolist(),
        "landmarks": face.landmarks.ravel().tolist(),
        "face_size": face.size,
        "sharpness": sharpness(grey),
        "clipped": clipped(grey),
        "yaw": yaw,
        "pitch": pitch,
        "roll": roll,
        "embedding": analyser.embed(image, face).tolist(),
        "recogniser": recogniser_name(analyser),
    }
    return row | {"quality": quality(row, face.score)}


def clipped(grey: np.ndarray) -> float:
    """Share of its pixels without drawing: almost black, or almost white."""
    return float(((grey <= BLACK) | (grey >= WHITE)).mean())


def quality(row: dict, score: float) -> float:
    """0..1 for ranking: geometric mean of face size, sharpness, frontality and detector score (our choice)."""
    parts = [
        min(row["face_size"] / 112, 1),
        row["sharpness"] / (row["sharpness"] + 100),
        max(1 - (abs(row["yaw"]) / 90) ** 2 - (abs(row["pitch"]) / 90) ** 2, 0.01),
        score,
    ]
    return float(np.prod(np.clip(parts, 0.01, 1)) ** (1 / len(parts)))
