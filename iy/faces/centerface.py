"""CenterFace (Xu et al. 2019, arXiv 1911.03599): an anchor-free face detector with five landmarks. Weights: MIT."""
import cv2
import numpy as np

from iy.faces import weights
from iy.faces.face import Face, biggest_first
from iy.faces.sessions import session

STRIDE = 4
SHORT_SIDE, LONG_SIDE = 160, 1280    # an image is enlarged to the first, reduced to the second, before looking
PADDING = .25                        # of the short side: tight crops need room around the face
OVERLAP = .3                         # boxes sharing more (intersection over union) are one face
GREY = 128


class CenterFace:
    name = "centerface"

    def __init__(self) -> None:
        self.network = session(weights.path("centerface"), free_sizes=True)

    def detect(self, image: np.ndarray, minimum_score: float) -> list[Face]:
        """Faces in uint8 RGB (H, W, 3), biggest first."""
        canvas, scale, shift = prepare(image)
        blob = canvas.transpose(2, 0, 1)[None].astype(np.float32)
        heat, size, offset, points = self.network.run(None, {"input.1": blob})
        boxes, landmarks, scores = decode(heat[0, 0], size[0], offset[0], points[0], minimum_score)
        keep = strongest(boxes, scores)
        return biggest_first([Face(((boxes[i].reshape(2, 2) / scale) - shift).ravel().astype(np.float32),
                                   (landmarks[i] / scale - shift).astype(np.float32), float(scores[i])) for i in keep])


def prepare(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Pad with grey and resize to sides divisible by 32: canvas, scale (x, y), and padding in image pixels."""
    height, width = image.shape[:2]
    pad = round(PADDING * min(height, width))
    scale = min(max(1., SHORT_SIDE / min(height, width)), LONG_SIDE / max(height, width))
    if scale < 1:                                     # shrink before padding: cheaper, and area-averaged
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        inner = np.array([image.shape[1] / width, image.shape[0] / height])
        canvas, outer, shift = prepare(image)
        return canvas, outer * inner, shift / inner
    padded = cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=(GREY,) * 3)
    sides = [int(np.ceil(side * scale / 32) * 32) for side in padded.shape[1::-1]]
    canvas = cv2.resize(padded, sides, interpolation=cv2.INTER_LINEAR)
    return canvas, np.array(sides) / padded.shape[1::-1], np.array([pad, pad])


def decode(heat: np.ndarray, size: np.ndarray, offset: np.ndarray, points: np.ndarray,
           minimum_score: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maps (h, w), (2, h, w), (2, h, w), (10, h, w) at stride 4 -> boxes (N, 4), landmarks (N, 5, 2), scores (N,)."""
    rows, columns = np.where(heat > minimum_score)
    height, width = np.exp(np.minimum(size[:, rows, columns], 8)) * STRIDE
    y = (rows + offset[0, rows, columns] + .5) * STRIDE - height / 2
    x = (columns + offset[1, rows, columns] + .5) * STRIDE - width / 2
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
