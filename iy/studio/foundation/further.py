"""Train the shipped U-Net further, on the same renders; everything else of the foundation stays as it ships.

    python -m iy.studio.foundation.further --steps 5000 && python -m iy.studio.foundation.pretrained --further

The pretrained bundle stands on the U-Net: train it further as well. The card keeps a list of what was added.
"""

import argparse
import json
import logging

from iy import params
from iy.diffusion import load_base
from iy.storage import write_json
from iy.studio.foundation import autoencoder, quality, unet
from iy.studio.foundation.recipe import WEIGHTS, Recipe, half
from iy.studio.probes import load_probes

FACTOR = 0.5  # of the first training's learning rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=2000)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5000)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    card = json.loads((WEIGHTS / "CARD.json").read_text())
    added = card.get("further", [])
    recipe, base = Recipe(options.people, options.shots, 1.0), load_base(params.load("studio").base)
    own = base.text[base.own]
    seed = 40 + len(added)
    model = unet.train(
        base.unet.requires_grad_(True).train(),
        autoencoder.latents(base.vae, recipe.train.images),
        recipe.texts,
        unet.text_encoder(own.tokenizer, own.encoder),
        recipe.work / f"further-{len(added)}",
        options.steps,
        rate=FACTOR * unet.RATE,
        seed=seed,
    )
    half(model, WEIGHTS / "foundation" / "unet")
    card |= quality.measure(load_probes(WEIGHTS / "probes"), recipe.train.attributes)
    command = "python -m iy.studio.foundation.further " + " ".join(f"--{k} {v}" for k, v in vars(options).items())
    write_json(WEIGHTS / "CARD.json", card | {"further": [*added, {"command": command, "seed": seed}]})


if __name__ == "__main__":
    main()
