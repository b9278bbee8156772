"""Is it the person of the reference? The pretrained bundle's drawings of strangers, asked of both recognisers.

The judge of the evaluation only reports here: nothing is trained or chosen by it.
"""

import numpy as np
from diffusers import AutoencoderKL
from tqdm import tqdm

from foundation import autoencoder
from foundation.quality import BATCH, GUIDANCE, combinations
from foundation.renders import Faces, Renders
from iy import lexicon, params
from iy.evaluate import identity
from iy.evaluate.look import Observer
from iy.generate import Cell, draw
from iy.model import ImagineYourselfPipeline

PEOPLE, GALLERY, PROMPTS, STEPS = 48, 12, 4, 8
RECOGNISERS = ("filter", "judge")


def measure(pipeline: ImagineYourselfPipeline, held: Renders, faces: Faces) -> dict[str, float | str]:
    """Share of drawings nearest to their own person among `GALLERY`: chance is 1 / GALLERY.

    And of the references that the autoencoder gave back: no drawing can be expected to do better. Each person stands
    for the mean of their photos but the first one, which is the reference.
    """
    firsts = [who * held.shots for who in range(PEOPLE)]
    drawn = drawings(pipeline, [faces.crops[i] for i in firsts])
    observer = Observer(params.load("studio"))
    looks = observer.look_all(tqdm(drawn, "recognising"))
    returned = observer.look_all(given_back(pipeline.vae, held.images[firsts]))
    known = [observer.look_all(held.photos[first + 1 : first + held.shots]) for first in firsts]
    share = {}
    for name in RECOGNISERS:
        templates = [
            identity.template([v for look in photos if (v := getattr(look, name)) is not None]) for photos in known
        ]
        for key, those in ((name, looks), (f"{name}_given_back", returned)):
            share[key] = round(float(np.mean(recognised([getattr(look, name) for look in those], templates))), 4)
    return share | {
        "how": f"{PEOPLE} strangers in galleries of {GALLERY}, {PROMPTS} drawings of one reference each, {STEPS} steps"
    }


def drawings(pipeline: ImagineYourselfPipeline, crops: list[np.ndarray]) -> list[np.ndarray]:
    """`PROMPTS` of every reference (64, 64, 3), one after the other; the prompts say nothing of the person."""
    asked, rng = combinations([]), np.random.default_rng(11)
    cells = [
        Cell(lexicon.describe(asked[seed], rng, person=False), crop, seed)
        for seed, crop in enumerate(crop for crop in crops for _ in range(PROMPTS))
    ]
    return draw(
        pipeline,
        cells,
        steps=STEPS,
        guidance=GUIDANCE,
        identity_guidance=GUIDANCE,
        batch=BATCH,
        progress="drawing people",
    )


def given_back(vae: AutoencoderKL, images: np.ndarray) -> np.ndarray:
    """What the autoencoder makes of images uint8 (N, 64, 64, 3)."""
    return autoencoder.reconstructions(vae, autoencoder.latents(vae, images))


def recognised(seen: list[np.ndarray | None], templates: list[np.ndarray]) -> list[bool]:
    """Whether each picture, equally many of every person in a row, is nearest to its person among their `GALLERY`."""
    answers = []
    for i, vector in enumerate(seen):
        who = i * len(templates) // len(seen)
        start = who - who % GALLERY
        gallery = {str(k): templates[k] for k in range(start, start + GALLERY)}
        answers.append(identity.identified(vector, str(who), gallery))
    return answers
