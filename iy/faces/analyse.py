"""The one interface that rooms use: an analyser finds faces and embeds them with the recogniser it was set up with."""

from typing import Protocol

import numpy as np

from iy import params
from iy.faces import weights
from iy.faces.face import Face, reduced
from iy.faces.recognise import Recogniser, load_recogniser


class Analyser(Protocol):
    name: str
    licence: str
    recogniser: Recogniser

    def detect(self, image: np.ndarray) -> list[Face]:
        """Faces in uint8 RGB (H, W, 3), biggest first; small images and tight crops are enlarged and padded inside."""
        ...

    def embed(self, image: np.ndarray, face: Face) -> np.ndarray:
        """float32 (D,), not normalised."""
        ...


class Open:
    """CenterFace (MIT) finds, dlib's ResNet (CC0) recognises: free for any use."""

    name = "open"

    def __init__(self, faces: params.Faces, usage: weights.Usage, device: str) -> None:
        from iy.faces.centerface import CenterFace

        weights.require("centerface", usage)
        self.detector, self.minimum_score = CenterFace(device), faces.minimum_score
        self.embed_size = faces.embed_size
        self.recogniser = load_recogniser("dlib", usage, device)
        self.licence = f"{weights.WEIGHTS['centerface'].licence} AND {self.recogniser.licence}"

    def detect(self, image: np.ndarray) -> list[Face]:
        return self.detector.detect(image, self.minimum_score)

    def embed(self, image: np.ndarray, face: Face) -> np.ndarray:
        return self.recogniser.embed(*reduced(image, face, self.embed_size))


def load_analyser(faces: params.Faces, usage: weights.Usage, device: str) -> Analyser:
    """The analyser that `faces` names, or one sentence on what it lacks or may not be used for.

    device: auto, cpu or cuda, as in the settings.
    """
    if faces.analyser == "open":
        return Open(faces, usage, device)
    from iy.faces.pack import Pack

    return Pack(faces, usage, device)


def recogniser_name(analyser: Analyser) -> str:
    """What embeddings are known by: only those of one name can be compared."""
    return f"{analyser.recogniser.name}@{analyser.recogniser.version}"


def require(settings: params.Params) -> None:
    """Refuse at once what a run would refuse when it gets there: weights that are missing, damaged or not allowed."""
    names = [settings.evaluate.second_recogniser]
    if settings.faces.analyser == "open":
        names = ["centerface", "dlib", *names]
    else:
        from iy.faces.pack import allowed, checked_folder

        allowed(checked_folder(settings.faces.pack), settings.usage)
    for name in names:
        weights.require(name, settings.usage)
        weights.path(name)
