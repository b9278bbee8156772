"""Small made-up renders and lessons for the foundation's tests."""

import numpy as np
import torch

from foundation import lesson as lessons
from foundation import renders
from iy import lexicon


def toy(people: int = 3, shots: int = 2) -> renders.Renders:
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 256, (people * shots, renders.PHOTO, renders.PHOTO, 3), np.uint8)
    rows = [{name: str(rng.choice(list(lexicon.LEXICON[name]))) for name in lexicon.SHOT} for _ in photos]
    return renders.Renders(photos, renders.reduced(photos), np.repeat(np.arange(people), shots), rows)


def lesson(count: int = 8) -> lessons.Lesson:
    texts = [["silent", "A smiling man.", "A sad man."] for _ in range(count)]
    others = [np.array([1, 2])] * (count - 1) + [np.array([], int)]
    rows = [{"gender": "man", "expression": "smiling"} for _ in range(count)]
    boxes = np.tile(np.float32([16, 16, 48, 48]), (count, 1))
    points = np.tile(np.float32([[26, 28], [38, 28], [32, 35], [27, 42], [37, 42]]), (count, 1, 1))
    latents, who = torch.zeros(count, 4, 16, 16), np.arange(count)
    images = torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return lessons.Lesson(latents, images, who[::-1], boxes, points, texts, rows, who, others, (None, None))
