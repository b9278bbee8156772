"""Identity in numbers: cosines, copy-paste, closed-set identification. A missing face (None) is a failure, never
skipped.

g: generated image, r: the reference it was drawn from, t: another real photo of the same person; embeddings (D,).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from iy.faces.recognise import unit

MISSING_COSINE = 0.0  # of an image without a face: as unlike as unrelated vectors
MISSING_COPY = 1.0  # its copy-paste: the worst value
EPSILON = 1e-3  # radians


def cosine(a: np.ndarray | None, b: np.ndarray) -> float:
    """In [-1, 1]; `MISSING_COSINE` without a face."""
    return MISSING_COSINE if a is None else float(unit(a) @ unit(b))


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """theta = arccos of the cosine, radians in [0, pi]."""
    return float(np.arccos(np.clip(unit(a) @ unit(b), -1, 1)))


def copy_paste(g: np.ndarray | None, r: np.ndarray, t: np.ndarray) -> float:
    """(theta_gt - theta_gr) / max(theta_tr, eps), docs/method.md §5: +1 copies r, -1 sits on t."""
    if g is None:
        return MISSING_COPY
    return (angle(g, t) - angle(g, r)) / max(angle(t, r), EPSILON)


def template(photos: Sequence[np.ndarray]) -> np.ndarray:
    """What stands for a person in the gallery: the mean direction of their photos."""
    return unit(np.mean([unit(photo) for photo in photos], 0))


def identified(g: np.ndarray | None, person: str, gallery: Mapping[str, np.ndarray]) -> bool:
    """Is `person` the gallery's nearest to g? Rank 1 of a closed set; chance is 1 / len(gallery)."""
    if g is None:
        return False
    return max(gallery, key=lambda name: float(unit(g) @ gallery[name])) == person
