"""What is read off one image: face, embeddings by both recognisers, pose, sharpness. A missing face is all None."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from iy.errors import UserError
from iy.faces import Analyser, Face, Recogniser, load_analyser, load_recogniser
from iy.faces.crop import face_crop
from iy.faces.pose import pose
from iy.params import Params

SHARPNESS_SIDE = 112


@dataclass(frozen=True)
class Look:
    """filter, judge: embeddings (D,) or None; yaw in degrees; score: the detector's, 0..1; sharpness: Laplacian
    variance."""

    filter: np.ndarray | None
    judge: np.ndarray | None
    yaw: float
    pitch: float
    score: float
    sharpness: float

    @property
    def found(self) -> bool:
        return self.filter is not None


NOTHING = Look(None, None, 0.0, 0.0, 0.0, 0.0)


class Observer:
    """The filtering analyser and the second recogniser, which never filtered, picked or trained."""

    def __init__(self, params: Params) -> None:
        self.analyser: Analyser = load_analyser(params.faces, params.usage, params.device)
        self.judge: Recogniser = load_recogniser(params.evaluate.judge, params.usage, params.device)
        if self.judge.version == self.analyser.recogniser.version:
            raise UserError(
                f"evaluate.judge = {self.judge.name!r} is the recogniser that filters: name the other one, so "
                "that the models are not judged by what chose their training pairs"
            )

    def look(self, image: np.ndarray) -> Look:
        """The biggest face of uint8 (H, W, 3)."""
        faces = self.analyser.detect(image)
        return self.read(image, faces[0]) if faces else NOTHING

    def read(self, image: np.ndarray, face: Face) -> Look:
        turned = pose(face.landmarks)
        crop = face_crop(image, face.box, face.landmarks, SHARPNESS_SIDE, 1.0, mask=False)
        sharp = cv2.Laplacian(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var()
        return Look(
            self.analyser.embed(image, face),
            self.judge.embed(image, face),
            turned.yaw,
            turned.pitch,
            float(face.score),
            float(sharp),
        )

    def look_all(self, images: Sequence[np.ndarray]) -> list[Look]:
        """One after the other: dlib's network must not be shared by threads, and onnxruntime brings its own."""
        return [self.look(image) for image in images]

    def photo(self, image: np.ndarray, row: dict) -> Look:
        """A curated photo (PHOTO row) through the face that curate found in it."""
        face = Face(np.array(row["box"], np.float32), np.array(row["landmarks"], np.float32).reshape(5, 2), 1.0)
        return self.read(image, face)


def reduced(image: np.ndarray, side: int) -> np.ndarray:
    """The photo at the model's size: its shorter side at most `side` pixels."""
    scale = side / min(image.shape[:2])
    return image if scale >= 1 else cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
