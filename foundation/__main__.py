"""Make the studio's foundation, probes and identity network.

    python -m foundation                  # hours on two cores; --scale 0.1 for a quick look
    python -m foundation --only vae       # one part (and what it needs): parts can be made side by side
    python -m foundation --keep vae t5 byt5 --start unet          # go on from what ships

Writes weights/studio/{foundation,probes,identity} and weights/studio/CARD.json. Work in progress stays in
.iy/foundation: started again, the recipe goes on from its last checkpoint. `python -m foundation.pretrained`
makes the pretrained bundle after it.
"""

import argparse
import logging
import sys

from foundation.recipe import KEEP, START, STEPS, Recipe, publish


def part_steps(text: str) -> tuple[str, int]:
    part, _, count = text.partition("=")
    if part not in STEPS or not count.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not PART=N with a part of {', '.join(STEPS)}")
    return part, int(count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full number of steps")
    parser.add_argument("--people", type=int, default=2000)
    parser.add_argument("--shots", type=int, default=5, help="photos of each person")
    parser.add_argument("--only", choices=["train", "faces", *STEPS], help="make this part and leave")
    parser.add_argument("--steps", nargs="*", type=part_steps, default=[], metavar="PART=N", help="of single parts")
    parser.add_argument("--keep", nargs="*", choices=KEEP, default=[], help="take these parts as they ship")
    parser.add_argument("--start", nargs="*", choices=START, default=[], help="begin these parts with what ships")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--times", type=int, default=1, help="as many pictures a step as on a CPU: 8 or so for a GPU")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    recipe = Recipe(
        options.people,
        options.shots,
        options.scale,
        dict(options.steps),
        keep=options.keep,
        start=options.start,
        device=options.device,
        times=options.times,
    )
    if options.only:
        getattr(recipe, options.only)
    else:
        publish(recipe, "python -m foundation " + " ".join(sys.argv[1:]))


if __name__ == "__main__":
    main()
