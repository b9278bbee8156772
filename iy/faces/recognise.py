"""Recognisers: a vector per face; photos of one person point the same way."""

from typing import Protocol

import numpy as np

from iy.errors import UserError
from iy.faces import dlibnet, weights
from iy.faces.align import ARCFACE_112, DLIB_150, chip
from iy.faces.face import Face
from iy.faces.sessions import outputs, session


class Recogniser(Protocol):
    name: str
    version: str  # first 12 hex digits of the weights' sha256, and what else decides the vectors
    licence: str
    width: int  # numbers per face
    threshold: float  # cosine at and above which two faces are taken for one person

    def embed(self, image: np.ndarray, face: Face) -> np.ndarray:
        """The face of uint8 RGB (H, W, 3) as float32 (D,), not normalised."""
        ...


class Dlib:
    """dlib's ResNet-29 (King 2017), 128-d vectors of norm 1.41: the mean of a face and its mirror image, which lowers
    the equal error rate on the AT&T faces from 0.33 % to 0.22 %. Trained for an L2 distance of 0.6 = cosine .910.
    """

    name = "dlib"
    width = 128
    threshold = 0.932  # L2 0.52, the equal error rate on the AT&T faces; .910 joins people there

    def __init__(self, device: str) -> None:
        self.network = dlibnet.load(weights.path("dlib"), device)
        self.version = weights.WEIGHTS["dlib"].sha256[:12] + "-mirror"
        self.licence = weights.WEIGHTS["dlib"].licence

    def embed(self, image: np.ndarray, face: Face) -> np.ndarray:
        aligned = chip(image, face.landmarks, DLIB_150, dlibnet.SIDE)
        straight = dlibnet.blob(aligned)
        both = np.concatenate([straight, straight[..., ::-1]])
        return outputs(self.network, {"chip": both})[0].mean(0)


class FrFeature:
    """A MobileFaceNet-sized network, 512-d. Training data unknown, so research use only."""

    name = "fr_feature"
    width = 512
    threshold = 0.378  # equal error rate (0.2 %) on the AT&T faces

    def __init__(self, device: str) -> None:
        self.network = session(weights.path("fr_feature"), device)
        self.version, self.licence = weights.WEIGHTS["fr_feature"].sha256[:12], weights.WEIGHTS["fr_feature"].licence

    def embed(self, image: np.ndarray, face: Face) -> np.ndarray:
        aligned = (chip(image, face.landmarks, ARCFACE_112, 112).astype(np.float32) - 127) / 128
        return outputs(self.network, {"input": aligned.transpose(2, 0, 1)[None]})[0][0]


RECOGNISERS: dict[str, type[Dlib] | type[FrFeature]] = {"dlib": Dlib, "fr_feature": FrFeature}


def load_recogniser(name: str, usage: weights.Usage, device: str) -> Recogniser:
    if name not in RECOGNISERS:
        raise UserError(f"no recogniser is called {name!r}: choose one of {sorted(RECOGNISERS)}")
    weights.require(name, usage)
    return RECOGNISERS[name](device)


def similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine in [-1, 1] of embeddings (..., D) and (..., D), pair by pair."""
    return np.sum(unit(a) * unit(b), -1)


def unit(a: np.ndarray) -> np.ndarray:
    """Vectors (..., D) at length 1."""
    a = np.asarray(a, np.float64)
    return a / np.maximum(np.linalg.norm(a, axis=-1, keepdims=True), 1e-12)
