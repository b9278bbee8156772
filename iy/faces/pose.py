"""Head pose from five landmarks: weak-perspective fit of a mean face (Dementhon & Davis 1995, one POS step)."""

from typing import NamedTuple

import numpy as np

# An average adult face in millimetres: x to the viewer's right, y down, z towards the viewer; the nose tip is 0.
MEAN_FACE = np.array(
    [[-32.0, -34.0, -27.0], [32.0, -34.0, -27.0], [0.0, 0.0, 0.0], [-27.0, 30.0, -24.0], [27.0, 30.0, -24.0]]
)
# CenterFace draws turned noses further aside than they are and raised ones less. Fitted to 637 studio portraits of
# known pose; after it yaw is right within 3 degrees (mean), roll within 3, pitch only within 7: five points say little
GAIN, OFFSET = np.array([0.8, 1.12, 1.0]), np.array([1.5, 4.0, 0.0])


class Pose(NamedTuple):
    """Degrees, in the viewer's terms: yaw > 0 faces right, pitch > 0 up, roll > 0 leans right (clockwise)."""

    yaw: float
    pitch: float
    roll: float


def pose(landmarks: np.ndarray) -> Pose:
    """The head's pose from landmarks (5, 2) in pixels."""
    centred = np.asarray(landmarks, np.float64) - np.mean(landmarks, 0)
    model = MEAN_FACE - MEAN_FACE.mean(0)
    affine = np.linalg.lstsq(model, centred, rcond=None)[0].T  # (2, 3): scaled first rows of the rotation
    u, _, v = np.linalg.svd(affine, full_matrices=False)
    rows = u @ v
    facing = rows[:, 2]  # where the nose points, in the image plane
    roll = np.degrees(np.arctan2(-rows[0, 1], rows[1, 1]))
    turn = np.radians(-roll)  # undo the lean before reading yaw and pitch
    x, y = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ facing
    pitch = np.degrees(np.arcsin(np.clip(-y, -1, 1)))
    yaw = np.degrees(np.arctan2(x, np.sqrt(max(1 - x * x - y * y, 0.0))))
    return Pose(*(GAIN * [yaw, pitch, roll] + OFFSET).tolist())
