"""A contact sheet, people down and shots across: python -m iy.studio --out grid.png --people 6 --seed 1 (10 s)."""

import argparse

import numpy as np
from PIL import Image

from iy import lexicon
from iy.studio import Studio, sample_people, shot_from


def sheet(people: int, seed: int, size: int) -> Image.Image:
    """One row per person; each of the 12 expressions once, each in another pose, light, backdrop and garment."""
    studio = Studio()
    shots = [
        shot_from(
            {
                "expression": expression,
                "pose": list(lexicon.POSES)[k % 9],
                "light": list(lexicon.LIGHTS)[k % 6],
                "backdrop": list(lexicon.BACKDROPS)[k],
                "garment": list(lexicon.GARMENTS)[k % 6],
            },
            seed + k,
        )
        for k, expression in enumerate(lexicon.EXPRESSIONS)
    ]
    rows = [
        np.concatenate([studio.render(person, shot, size) for shot in shots], 1)
        for person in sample_people(people, seed)
    ]
    return Image.fromarray(np.concatenate(rows, 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="grid.png")
    parser.add_argument("--people", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", type=int, default=128)
    options = parser.parse_args()
    sheet(options.people, options.seed, options.size).save(options.out)


if __name__ == "__main__":
    main()
