"""What a detector finds."""

from typing import NamedTuple

import cv2
import numpy as np

RIVAL = 0.4  # a second face with at least this share of the largest one's area makes it a group photo


class Face(NamedTuple):
    """One found face, in pixels of the image it was found in (it may reach beyond the image's edges)."""

    box: np.ndarray  # float32 (4,): x0, y0, x1, y1
    landmarks: np.ndarray  # float32 (5, 2): left eye as seen, right eye, nose tip, left and right mouth corner
    score: float  # 0..1

    @classmethod
    def of(cls, row: dict) -> "Face":
        """The face that curate found in a PHOTO row's photo; what the detector thought of it is not kept."""
        return cls(np.array(row["box"], np.float32), np.array(row["landmarks"], np.float32).reshape(5, 2), 1.0)

    @property
    def size(self) -> float:
        """Shorter side of the box in pixels."""
        return float(min(self.box[2] - self.box[0], self.box[3] - self.box[1]))

    @property
    def area(self) -> float:
        return float((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))


def rivals(faces: list[Face]) -> int:
    """How many of the faces found, biggest first, a photo is of: far smaller ones are bystanders and do not count."""
    return sum(face.area >= RIVAL * faces[0].area for face in faces)


def biggest_first(faces: list[Face]) -> list[Face]:
    return sorted(faces, key=lambda face: -face.area)


def reduced(image: np.ndarray, face: Face, side: int | None) -> tuple[np.ndarray, Face]:
    """The image with its shorter side at most `side` pixels (None: as it is), and the face in it."""
    scale = 1.0 if side is None else side / min(image.shape[:2])
    if scale >= 1:
        return image, face
    return shrunk(image, scale), Face(face.box * scale, face.landmarks * scale, face.score)


def reduced_image(image: np.ndarray, side: int) -> np.ndarray:
    """The image with its shorter side at most `side` pixels."""
    scale = side / min(image.shape[:2])
    return image if scale >= 1 else shrunk(image, scale)


def shrunk(image: np.ndarray, scale: float) -> np.ndarray:
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
