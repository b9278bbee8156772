"""CenterFace (Xu et al. 2019, arXiv 1911.03599): an anchor-free face detector with five landmarks. Weights: MIT."""

import cv2
import numpy as np

from iy.faces import weights
from iy.faces.face import Face, biggest_first
from iy.faces.sessions import outputs, session

STRIDE = 4
# A portrait needs no more than the first look, at this shorter side: on 80 renders of 768 px (20 people) a tenth of
# the time of looking at all of it, and landmarks that recognise better (AUC 0.998 against 0.992).
FIRST_LOOK = 320
CLEAR = 48  # pixels of a face there at and above which others of its kind were seen too
LONG_SIDE = 1280  # larger images are reduced to this for the whole look
SMALLEST = 128  # shorter side; smaller images are enlarged to this
PADDING = 0.25  # of the short side: tight crops need room around the face
# Where nothing is found, other sizes of the short side and paddings often show it: faces that fill a large photo.
SECOND_LOOKS = ((192, PADDING), (320, 0.0))
OVERLAP = 0.3  # boxes sharing more (intersection over union) are one face
GREY = 128


class CenterFace:
    name = "centerface"

    def __init__(self, device: str) -> None:
        self.network = session(weights.path("centerface"), device, free_sizes=True)

    def detect(self, image: np.ndarray, minimum_score: float) -> list[Face]:
        """Faces in uint8 RGB (H, W, 3), biggest first; in a large photo of a large face, none that is far smaller."""
        side = min(image.shape[:2])
        if side > FIRST_LOOK:
            found = self.look(image, FIRST_LOOK / side, PADDING, minimum_score)
            if found and found[0].size * FIRST_LOOK / side >= CLEAR:
                return found
        for short, padding in ((max(side, SMALLEST), PADDING), *SECOND_LOOKS):
            if found := self.look(image, short / side, padding, minimum_score):
                return found
        return []

    def look(self, image: np.ndarray, scale: float, padding: float, minimum_score: float) -> list[Face]:
        """Faces in the image enlarged `scale` times, within a grey border of `padding` short sides."""
        canvas, scales, border = prepare(image, min(scale, LONG_SIDE / max(image.shape[:2])), padding)
        blob = canvas.transpose(2, 0, 1)[None].astype(np.float32)
        heat, size, offset, points = outputs(self.network, {"input.1": blob})
        boxes, landmarks, scores = decode(heat[0, 0], size[0], offset[0], points[0], minimum_score)
        return biggest_first(
            [
                Face(
                    ((boxes[i].reshape(2, 2) - border) / scales).ravel().astype(np.float32),
                    ((landmarks[i] - border) / scales).astype(np.float32),
                    float(scores[i]),
                )
                for i in strongest(boxes, scores)
            ]
        )


def prepare(image: np.ndarray, scale: float, padding: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The image at about `scale` in a grey border, sides divisible by 32: canvas, scale, border (x, y) in pixels."""
    sides = np.array(image.shape[1::-1])
    inner = np.maximum(np.round(sides * scale), 1)
    whole = np.ceil((inner + 2 * round(padding * inner.min())) / 32) * 32
    border = ((whole - inner) // 2).astype(int)
    rest = (whole - inner - border).astype(int)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(image, inner.astype(int).tolist(), interpolation=how)
    canvas = cv2.copyMakeBorder(
        resized, int(border[1]), int(rest[1]), int(border[0]), int(rest[0]), cv2.BORDER_CONSTANT, value=(GREY,) * 3
    )
    return canvas, inner / sides, border


def decode(
    heat: np.ndarray, size: np.ndarray, offset: np.ndarray, points: np.ndarray, minimum_score: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maps (h, w), (2, h, w), (2, h, w), (10, h, w) at stride 4 -> boxes (N, 4), landmarks (N, 5, 2), scores (N,)."""
    rows, columns = np.where(heat > minimum_score)
    height, width = np.exp(np.minimum(size[:, rows, columns], 8)) * STRIDE
    y = (rows + offset[0, rows, columns] + 0.5) * STRIDE - height / 2
    x = (columns + offset[1, rows, columns] + 0.5) * STRIDE - width / 2
    yx = points[:, rows, columns].reshape(5, 2, -1)
    landmarks = np.stack([yx[:, 1] * width + x, yx[:, 0] * height + y], -1).transpose(1, 0, 2)
    return np.stack([x, y, x + width, y + height], -1), landmarks, heat[rows, columns]


def strongest(boxes: np.ndarray, scores: np.ndarray) -> list[int]:
    """Non-maximum suppression: indices of the boxes that no stronger box covers."""
    keep: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        if not keep or overlap(boxes[i], boxes[keep]).max() < OVERLAP:
            keep.append(int(i))
    return keep


def overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of one box (4,) with boxes (N, 4)."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.clip(sides, 0, None).prod(-1)
    area = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(-1) - shared
    return shared / np.maximum(area, 1e-9)
