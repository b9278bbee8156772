"""Make the studio's foundation, probes and identity network.

    python -m iy.studio.foundation                  # hours on two cores; --scale 0.1 for a quick look
    python -m iy.studio.foundation --only vae       # one part (and what it needs): parts can be made side by side

Writes weights/studio/{foundation,probes,identity} and weights/studio/CARD.json. Work in progress stays in
.iy/foundation: started again, the recipe goes on from its last checkpoint. `python -m iy.studio.foundation.pretrained`
makes the pretrained bundle after it.
"""

import argparse
import logging

from iy.studio.foundation.recipe import STEPS, Recipe, publish


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full number of steps")
    parser.add_argument("--people", type=int, default=2000)
    parser.add_argument("--shots", type=int, default=5, help="photos of each person")
    parser.add_argument("--only", choices=["train", "faces", *STEPS], help="make this part and leave")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    recipe = Recipe(options.people, options.shots, options.scale)
    if options.only:
        getattr(recipe, options.only)
    else:
        arguments = " ".join(f"--{name} {getattr(options, name)}" for name in ("scale", "people", "shots"))
        publish(recipe, f"python -m iy.studio.foundation {arguments}")


if __name__ == "__main__":
    main()
