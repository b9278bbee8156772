"""The reference that a model is given: a square around the face, everything outside it masked, as the paper does."""

from pathlib import Path

import cv2
import numpy as np

from iy.faces.face import Face
from iy.params import Params
from iy.storage import read_image

GREY = 128


def reference_crop(settings: Params, folder: Path, row: dict) -> np.ndarray:
    """The masked face of a PHOTO row whose shards lie in `folder`, as the model is trained on it and drawn by it:
    uint8 (S, S, 3)."""
    face, model = Face.of(row), settings.model
    image, size = read_image(folder, row), settings.base.image_size
    return face_crop(image, face.box, face.landmarks, size, model.crop_margin, model.mask_face)


def face_crop(
    image: np.ndarray, box: np.ndarray, landmarks: np.ndarray, size: int, margin: float, mask: bool
) -> np.ndarray:
    """uint8 RGB (H, W, 3) -> (size, size, 3): a square of `margin` box sides around the face.

    With `mask`, what lies outside an ellipse over the face is grey. What lies outside the photo is grey in any case.
    """
    box, landmarks = np.asarray(box, np.float64), np.asarray(landmarks, np.float64).reshape(5, 2)
    centre = (box[:2] + box[2:]) / 2
    side = margin * float((box[2:] - box[:2]).max())
    scale = size / max(side, 1e-6)
    shift = size / 2 - scale * centre
    crop = warp(image, scale, shift, size)
    if not mask:
        return crop
    shape = np.zeros((size, size), np.float32)
    cv2.ellipse(shape, face_ellipse(box * scale + np.tile(shift, 2), landmarks * scale + shift), 1.0, -1, cv2.LINE_AA)
    return np.round(crop * shape[..., None] + GREY * (1 - shape[..., None])).astype(np.uint8)


def warp(image: np.ndarray, scale: float, shift: np.ndarray, size: int) -> np.ndarray:
    """Scale by `scale`, then move by `shift` pixels, into (size, size, 3); averaged when it shrinks."""
    if scale < 0.5:
        small = cv2.resize(image, None, fx=2 * scale, fy=2 * scale, interpolation=cv2.INTER_AREA)
        return warp(small, 0.5, shift, size)
    transform = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    return cv2.warpAffine(
        image, transform, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(GREY,) * 3
    )


def face_ellipse(box: np.ndarray, landmarks: np.ndarray) -> tuple:
    """An OpenCV rotated rectangle over forehead, cheeks and chin, leaning with the eyes: (centre, axes, degrees)."""
    width, height = box[2:] - box[:2]
    eyes, mouth = landmarks[:2].mean(0), landmarks[3:].mean(0)
    lean = np.degrees(np.arctan2(*(landmarks[1] - landmarks[0])[::-1]))
    centre = 0.5 * (box[:2] + box[2:]) + 0.25 * ((eyes + mouth) / 2 - 0.5 * (box[:2] + box[2:]))
    return (tuple(map(float, centre)), (float(1.08 * width), float(1.12 * height)), float(lean))
