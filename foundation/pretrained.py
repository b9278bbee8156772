"""Train the pretrained bundle on: stage 1 run long on the foundation's own people, from where the bundle stands.

    python -m foundation.pretrained --steps 6000      # an hour or more on two cores

The foundation's recipe writes the bundle's beginning: attention to references that the U-Net learnt with.

The engine of the four stages with the studio's settings, on the renders that the foundation was made from; the studio's
photos show other people. Writes weights/studio/pretrained, fp16. Killed and started again, it goes on from its last
checkpoint.
"""

import argparse
import json
import logging
import sys

import numpy as np
import torch

from foundation import autoencoder, language, renders
from foundation.recipe import WEIGHTS, WORK, Recipe
from iy import params
from iy.diffusion import Base, text_states
from iy.finetune.examples import Examples, Texts
from iy.finetune.trainer import Trainer
from iy.model import bundle
from iy.storage import write_json

ENCODE = 16  # captions encoded at once
CARD = WEIGHTS / "PRETRAINED.json"


def read_card() -> list[str]:
    """The commands that made the shipped bundle so far."""
    return json.loads(CARD.read_text())["commands"]


def settings(steps: int) -> params.Params:
    """The studio's settings with this recipe's few changes."""
    value = params.load("studio").resolved()
    value["profile"] = "pretrained"
    value["finetune"] |= {
        "init": "none",
        "pretrained": None,
        "checkpoint_every": 250,
    }
    value["finetune"]["training"] |= {
        "validate_every": 500,
        "ema_decay": 0.998,
        "batch": 16,
        "reference_other": 0.4,
        "face_weight": 3.0,
        "identity_weight": 1.0,
    }
    value["finetune"]["stages"]["1"] |= {"steps": steps, "learning_rate": 7e-4, "warmup": 100}
    return params.parse(value, "the pretrained recipe")


def examples(made: renders.Renders, faces: renders.Faces, latents: torch.Tensor, base: Base) -> Examples:
    """Every render with a face, three captions of four silent about the person: what they say need not be seen."""
    rows = np.flatnonzero(np.isfinite(faces.box[:, 0]))
    texts = [language.caption(made, i, 4 * 97 + (i % 4 == 0)) for i in rows]
    captions = ["", *sorted(set(texts), key=lambda text: (len(text), text))]
    place = {text: i for i, text in enumerate(captions)}
    latents = latents[torch.from_numpy(rows)]
    person = made.person[rows]
    same = {one: np.flatnonzero(person == one) for one in np.unique(person)}
    others = [same[person[i]][same[person[i]] != i] for i in range(len(rows))]
    return Examples(
        latents,
        encode_captions(captions, base),
        np.array([place[text] for text in texts]),
        0,
        torch.from_numpy(faces.crops[rows]).permute(0, 3, 1, 2).contiguous(),
        np.arange(len(rows)),
        others,
        faces.box[rows] * latents.shape[-1] / renders.SIDE,
    )


def encode_captions(captions: list[str], base: Base) -> Texts:
    """States of every caption without padding, in memory; captions of like length together pad least."""
    rows: dict[str, list[torch.Tensor]] = {}
    for first in range(0, len(captions), ENCODE):
        for name, (hidden, mask) in text_states(base.text, captions[first : first + ENCODE]).items():
            kept = [states[: int(real.sum())].cpu().clone() for states, real in zip(hidden, mask, strict=True)]
            rows.setdefault(name, []).extend(kept)
    return Texts(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=2000)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of the foundation, to find its renders again")
    parser.add_argument("--steps", type=int, default=6000)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    chosen, recipe = settings(arguments.steps), Recipe(arguments.people, arguments.shots, arguments.scale, keep=["vae"])
    base = recipe.shipped
    train = examples(recipe.train, recipe.faces, recipe.latents, base)
    held = examples(recipe.held, recipe.held_faces, autoencoder.latents(base.vae, recipe.held.images), base)
    before, model = read_card(), bundle.load(WEIGHTS / "pretrained", base)
    trainer = Trainer(
        model,
        base.scheduler,
        train,
        held,
        chosen.finetune,
        chosen.finetune.stages["1"],
        seed=chosen.seed + len(before),
        resume=WORK / f"pretrained-{len(before)}",
    )
    curves = trainer.train()
    commands = [*before, "python -m foundation.pretrained " + " ".join(sys.argv[1:])]
    bundle.save(model, WEIGHTS / "pretrained", {"commands": commands}, fp16=True)
    write_json(
        CARD,
        {
            "commands": commands,
            "threads": torch.get_num_threads(),
            "licence": "Apache-2.0",
            "examples": len(train),
            "data": f"renders of anny people (CC0 data), seeds 0 to {arguments.people - 1}",
            "settings": chosen.resolved(),
            "validation_loss": curves["validation_loss"],
        },
    )


if __name__ == "__main__":
    main()
