"""What the face models and plain image statistics say about each photo: one pass, by several workers."""
import logging
from functools import cache
from pathlib import Path

import cv2
import imagehash
import numpy as np
from PIL import Image
from tqdm import tqdm

from iy import params, workers
from iy.faces import Analyser, Face, load_analyser
from iy.faces.crop import face_crop
from iy.faces.pose import pose
from iy.storage import read_image

SHARPNESS_SIDE = 112     # pixels of the face crop that sharpness is measured on
RIVAL = .4               # a second face with at least this share of the largest one's area makes it a group photo
log = logging.getLogger(__name__)


def measure(rows: list[dict], folder: Path, settings: params.Params) -> list[dict]:
    """The rows that have an image, with faces, box, pose, sharpness, embedding and hash filled in; order kept."""
    load_analyser(settings.faces, settings.usage)    # a missing pack is one sentence here, not a broken process pool
    jobs = [(row, folder, settings.faces, settings.usage) for row in rows]
    columns = list(tqdm(workers.each(measure_one, jobs, settings.workers), "faces", len(jobs), mininterval=1))
    return [row | found for row, found in zip(rows, columns, strict=True)]


def measure_one(job: tuple[dict, Path, params.Faces, str]) -> dict:
    row, folder, faces, usage = job
    cv2.setNumThreads(1)
    return columns(read_image(folder, row), opened(faces, usage))


@cache
def opened(faces: params.Faces, usage) -> Analyser:
    return load_analyser(faces, usage)


def columns(image: np.ndarray, analyser: Analyser) -> dict:
    """Columns of one photo uint8 RGB (H, W, 3). `faces` counts the largest and its rivals; far smaller
    bystanders do not count."""
    found = analyser.detect(image)
    row = {"faces": sum(face.area >= RIVAL * found[0].area for face in found),
           "phash": str(imagehash.phash(Image.fromarray(image)))}
    return row | of_face(image, found[0], analyser) if found else row


def of_face(image: np.ndarray, face: Face, analyser: Analyser) -> dict:
    yaw, pitch, roll = pose(face.landmarks)
    recogniser = analyser.recogniser
    row = {"box": face.box.tolist(), "landmarks": face.landmarks.ravel().tolist(), "face_size": face.size,
           "sharpness": sharpness(image, face), "yaw": yaw, "pitch": pitch, "roll": roll,
           "embedding": analyser.embed(image, face).tolist(), "recogniser": f"{recogniser.name}@{recogniser.version}"}
    return row | {"quality": quality(row, face.score)}


def sharpness(image: np.ndarray, face: Face) -> float:
    """Variance of the Laplacian of the grey face crop at 112 px: low where it is blurred or was enlarged."""
    crop = face_crop(image, face.box, face.landmarks, SHARPNESS_SIDE, 1., mask=False)
    return float(cv2.Laplacian(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())


def quality(row: dict, score: float) -> float:
    """0..1 for ranking: geometric mean of face size, sharpness, frontality and detector score (our choice)."""
    parts = [min(row["face_size"] / 112, 1), row["sharpness"] / (row["sharpness"] + 100),
             max(1 - (abs(row["yaw"]) / 90) ** 2 - (abs(row["pitch"]) / 90) ** 2, .01), score]
    return float(np.prod(np.clip(parts, .01, 1)) ** (1 / len(parts)))
