"""How well the foundation draws what it is asked for: attribute combinations that no render had, read by the probes."""

import numpy as np
from tqdm import tqdm

from iy import lexicon, params
from iy.diffusion import load_base
from iy.generate import Cell, draw
from iy.model import ImagineYourselfPipeline
from iy.studio.probes import READS, Probes

ASKED = ("expression", "pose", "backdrop", "garment", "garment_colour", "light")
IMAGES, STEPS, GUIDANCE, BATCH = 500, 16, 3.0, 50


def combinations(rendered: list[dict[str, str]], seed: int = 9) -> list[dict[str, str]]:
    """`IMAGES` random combinations of `ASKED` that none of the `rendered` pictures has."""
    known = {tuple(row[name] for name in ASKED) for row in rendered}
    rng, found = np.random.default_rng(seed), []
    while len(found) < IMAGES:
        row = {name: str(rng.choice(list(lexicon.LEXICON[name]))) for name in ASKED}
        if tuple(row.values()) not in known:
            found.append(row)
    return found


def measure(probes: Probes, rendered: list[dict[str, str]]) -> dict:
    """Share of the drawn images in which the probes read each attribute as asked, for the card."""
    settings = params.load("studio")
    base = load_base(settings.base)
    pipeline = ImagineYourselfPipeline.from_base(base, settings.model)
    asked, rng = combinations(rendered), np.random.default_rng(10)
    cells = [Cell(lexicon.describe(row, rng, person=False), None, seed) for seed, row in enumerate(asked)]
    images = []
    for start in tqdm(range(0, IMAGES, BATCH), "drawing"):
        images += draw(
            pipeline,
            cells[start : start + BATCH],
            steps=STEPS,
            guidance=GUIDANCE,
            identity_guidance=GUIDANCE,
            batch=BATCH,
        )
    seen = probes.read(images)
    share = {
        name: round(float(np.mean([a == row[name] for a, row in zip(seen[name], asked, strict=True)])), 4)
        for name in READS
    }
    return {
        "drawn_as_asked": share,
        "drawn_as_asked_how": f"{IMAGES} combinations no render had, {STEPS} steps, guidance {GUIDANCE}",
    }
