"""Small made-up renders for the foundation's tests."""

import numpy as np

from foundation import renders
from iy import lexicon


def toy(people: int = 3, shots: int = 2) -> renders.Renders:
    rng, count = np.random.default_rng(0), people * shots
    images = rng.integers(0, 256, (count, renders.SIDE, renders.SIDE, 3), np.uint8)
    rows = [{name: str(rng.choice(list(values))) for name, values in lexicon.LEXICON.items()} for _ in range(count)]
    return renders.Renders(
        images,
        np.repeat(np.arange(people), shots),
        rows,
        ["", *["SUN"] * (count - 1)],
        np.tile(np.float32([32, 32, 96, 96]), (count, 1)),
        np.tile(np.float32([[52, 56], [76, 56], [64, 70], [54, 84], [74, 84]]), (count, 1, 1)),
        rng.normal(size=(count, 128)).astype(np.float32),
    )
