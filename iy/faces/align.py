"""Warping a face so that its five landmarks fall on a template, as every recogniser expects its input."""

import cv2
import numpy as np

# Places of the five landmarks in an aligned chip, in pixels.
ARCFACE_112 = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
# Where CenterFace's landmarks fall in the chips that dlib's own `get_face_chip(size=150, padding=0.25)` makes: median
# over the 400 AT&T faces (std 2-4 px). So dlib's recogniser needs no landmark predictor of its own.
DLIB_150 = np.array([[47.46, 47.77], [103.9, 47.04], [75.11, 79.42], [51.7, 102.85], [98.37, 102.16]])


def similarity_transform(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares rotation, scale and shift (..., 2, 3) taking points (..., N, 2) to points (N, 2).

    As complex numbers: turning and scaling is multiplying by one number, so this is a line fitted through points.
    """
    s, t = (np.asarray(points, np.float64) @ [1, 1j] for points in (source, target))
    mean_s, mean_t = s.mean(-1, keepdims=True), t.mean(-1, keepdims=True)
    s, t = s - mean_s, t - mean_t
    turn = (s.conj() * t).sum(-1) / np.maximum((s.conj() * s).real.sum(-1), 1e-9)
    shift = mean_t[..., 0] - turn * mean_s[..., 0]
    rows = [turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def chip(image: np.ndarray, landmarks: np.ndarray, template: np.ndarray, size: int) -> np.ndarray:
    """The face of `image` (uint8 (H, W, 3)) as a (size, size, 3) chip whose landmarks lie on `template` (5, 2)."""
    transform = similarity_transform(landmarks, template)
    shrink = 1 / max(np.hypot(*transform[:, 0]), 1e-9)
    if shrink > 2:  # warpAffine does not average: shrink by area first
        image = cv2.resize(image, None, fx=1.5 / shrink, fy=1.5 / shrink, interpolation=cv2.INTER_AREA)
        return chip(image, np.asarray(landmarks) * (1.5 / shrink), template, size)
    return cv2.warpAffine(image, transform, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
