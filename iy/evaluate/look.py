"""What is read off one image: face, embeddings by both recognisers, pose, sharpness. A missing face is all None."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from iy.errors import UserError
from iy.faces import Analyser, Face, Recogniser, load_analyser, load_recogniser
from iy.faces.pose import pose
from iy.faces.sharpness import grey_face, sharpness
from iy.params import Params


@dataclass(frozen=True)
class Look:
    """filter, second: embeddings (D,) by the filtering recogniser and by the independent one, or None; yaw in degrees;
    score: the detector's, 0..1; sharpness: Laplacian variance."""

    filter: np.ndarray | None
    second: np.ndarray | None
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

    def __init__(self, settings: Params) -> None:
        self.analyser: Analyser = load_analyser(settings.faces, settings.usage, settings.device)
        chosen = settings.evaluate.second_recogniser
        self.second: Recogniser = load_recogniser(chosen, settings.usage, settings.device)
        if self.second.version == self.analyser.recogniser.version:
            raise UserError(
                f"evaluate.second_recogniser = {chosen!r} is the one that filters: name the other one, so that the "
                "models are not judged by what chose their training pairs"
            )

    def look(self, image: np.ndarray) -> Look:
        """The biggest face of uint8 (H, W, 3)."""
        faces = self.analyser.detect(image)
        return self.read(image, faces[0]) if faces else NOTHING

    def read(self, image: np.ndarray, face: Face) -> Look:
        turned = pose(face.landmarks)
        return Look(
            self.analyser.embed(image, face),
            self.second.embed(image, face),
            turned.yaw,
            turned.pitch,
            float(face.score),
            sharpness(grey_face(image, face)),
        )

    def look_all(self, images: Sequence[np.ndarray]) -> list[Look]:
        """One after the other: dlib's network must not be shared by threads, and onnxruntime brings its own."""
        return [self.look(image) for image in images]

    def photo(self, image: np.ndarray, row: dict) -> Look:
        """A curated photo (PHOTO row) through the face that curate found in it."""
        return self.read(image, Face.of(row))
