"""Make the pretrained bundle: stage 1 run long, from nothing, on many studio people.

    python -m iy.studio.foundation.pretrained --people 2000 --steps 20000      # hours on two cores

The very stages that a user runs (photos, curate, finetune 1), with the studio's settings but more people and steps, and
people who appear neither in the foundation's renders nor in the studio's photos. Writes weights/studio/pretrained, fp16.
Killed and started again, it goes on from its last checkpoint.
"""
import argparse

import torch

from iy import params
from iy.storage import write_json

FIRST_PERSON = 500_000


def settings(people: int, per_person: int, steps: int) -> params.Params:
    """The studio's settings with this recipe's few changes, under the profile name `pretrained`."""
    value = params.load("studio").resolved()
    value["profile"] = "pretrained"
    value["photos"] |= {"people": people, "per_person": per_person, "first_person": FIRST_PERSON}
    value["curate"] |= {"test_people": 2}
    value["finetune"] |= {"init": "none", "pretrained": None, "checkpoint_every": 200, "validate_every": 500, "ema_decay": .999,
                          "batch": 32}
    value["finetune"]["stages"]["1"] |= {"steps": steps, "learning_rate": 3e-4, "warmup": 50}
    return params.parse(value, "the pretrained recipe")


def main() -> None:
    from iy.curate import run as curate
    from iy.diffusion import load_base
    from iy.finetune import run as finetune
    from iy.model import bundle
    from iy.photos import run as photos

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=2000)
    parser.add_argument("--per-person", type=int, default=6)
    parser.add_argument("--steps", type=int, default=20000)
    arguments = parser.parse_args()
    chosen = settings(arguments.people, arguments.per_person, arguments.steps)
    for stage, run in (("photos", photos.run), ("curate", curate.run)):
        if not (chosen.data_dir(stage) / "photos.parquet").exists():
            run(chosen)
    finetune.run(chosen, "1")
    made = chosen.bundle_dir(1)
    model, lineage = bundle.load(made, load_base(chosen.base)), bundle.read_config(made)["lineage"]
    bundle.save(model, "weights/studio/pretrained", lineage, fp16=True)
    write_json("weights/studio/PRETRAINED.json", {"command": "python -m iy.studio.foundation.pretrained " + " ".join(
        f"--{key.replace('_', '-')} {value}" for key, value in vars(arguments).items()), "threads": torch.get_num_threads(),
        "licence": "Apache-2.0", "data": f"studio people from seed {FIRST_PERSON}", "settings": chosen.resolved()})


if __name__ == "__main__":
    main()
