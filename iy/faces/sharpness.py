"""How sharp a face is, measured alike wherever it is asked."""

import cv2
import numpy as np

from iy.faces.crop import face_crop
from iy.faces.face import Face

SIDE = 112  # pixels of the face crop that sharpness and exposure are measured on


def grey_face(image: np.ndarray, face: Face) -> np.ndarray:
    """The face of uint8 RGB (H, W, 3) in grey (112, 112)."""
    return cv2.cvtColor(face_crop(image, face.box, face.landmarks, SIDE, 1.0, mask=False), cv2.COLOR_RGB2GRAY)


def sharpness(grey: np.ndarray) -> float:
    """Variance of the Laplacian of a grey face: low where it is blurred or was enlarged."""
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())
