"""Make the studio's foundation, its probes, the identity network and the pretrained bundle: everything that ships.

    python -m foundation                            # a quarter of an hour on one H100, days on two cores
    python -m foundation --only vae                 # one part, and what it needs: parts can be made side by side
    python -m foundation --scale 0.01 --out /tmp/w  # a quick look at whether it runs

Writes weights/studio and weights/studio/CARD.json. Work in progress stays in .iy/foundation: started again, it goes on
from its last checkpoint. `--seconds unet=200` ends a part after that time, its rate having come down by then.
"""

import argparse
import logging
import sys
from pathlib import Path

from foundation import publish
from foundation.recipe import GROUPS, STEPS, Recipe
from iy.storage import write_json

PARTS = ("base", "people", "held", *STEPS, "foundation", "judges", "pretrained")


def named(text: str) -> tuple[str, float]:
    part, _, count = text.partition("=")
    if part not in (*STEPS, "pretrained") or not count.replace(".", "", 1).isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not PART=N with a part of {', '.join(STEPS)}, pretrained")
    return part, float(count)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--only", nargs="*", choices=PARTS, help="make these parts and leave")
    made.add_argument("--scale", type=float, default=1.0, help="share of the full number of steps")
    made.add_argument("--people", type=int, default=None, help="in each group of renders at most")
    made.add_argument("--steps", nargs="*", type=named, default=[], metavar="PART=N")
    made.add_argument("--batch", nargs="*", type=named, default=[], metavar="PART=N")
    made.add_argument("--seconds", nargs="*", type=named, default=[], metavar="PART=S", help="a part ends after these")
    made.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    made.add_argument("--out", type=Path, default=Path("weights/studio"))
    return made


def main() -> None:
    options = parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("iy.diffusion.encode").setLevel(logging.ERROR)  # long captions are cut by design
    groups = {
        name: group._replace(people=min(group.people, options.people or group.people)) for name, group in GROUPS.items()
    }
    steps, batch = ({part: int(count) for part, count in pairs} for pairs in (options.steps, options.batch))
    recipe = Recipe(groups, options.device, options.scale, steps, batch, dict(options.seconds))
    command = "python -m foundation " + " ".join(sys.argv[1:])
    for part in options.only or ("foundation", "judges", "pretrained"):
        make(recipe, part, options.out, command)


def make(recipe: Recipe, part: str, out: Path, command: str) -> None:
    if part == "foundation":
        publish.foundation(recipe, out / "foundation")
        write_json(out / "CARD.json", publish.card(recipe, command))
    elif part == "judges":
        publish.judges(recipe, out)
    elif part == "pretrained":
        publish.pretrained(recipe, out)
    else:
        getattr(recipe, part)


if __name__ == "__main__":
    main()
