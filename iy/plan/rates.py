"""How fast a machine is: from the table that ships, or as `iy plan --measure` found it here."""

import json
from pathlib import Path
from typing import NamedTuple

import yaml

from iy import project
from iy.errors import UserError
from iy.storage import write_json

SHIPPED = Path(__file__).with_name("rates.yaml")
HERE = "here"
KINDS = ("train", "draw", "pictures", "captions", "decode")  # of work on shapes


class Rates(NamedTuple):
    """flops: FLOP/s by kind of work. seconds: of one core, for a megapixel of a photo (`read` and kept, `open`ed again)
    and for one photo (`faces`, `render`); of one GPU, for what others' models say of one thing (`caption`, `classify`,
    `rewrite`), where somebody knows. start: of a stage's process. memory: GB of one GPU, None on a CPU. known: what of
    it was measured, where, when."""

    flops: dict[str, float]
    seconds: dict[str, float]
    start: float
    memory: float | None
    known: str


def of(gpu: str, profile: str) -> Rates:
    """The rates of a GPU in the table, or those measured here for `profile`."""
    if gpu == HERE:
        return here(profile)
    table = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    if gpu not in table:
        raise UserError(f"--gpu {gpu}: known are {', '.join(table)}, and `{HERE}` after `iy plan --measure` on it")
    row = table[gpu]
    flops = {kind: 1e12 * row["product"] * row["shares"][kind] for kind in KINDS}
    return Rates(flops, row["seconds"], row["start"], row["memory"], row["known"])


def file() -> Path:
    return project.state() / "rates.json"


def here(profile: str) -> Rates:
    try:
        return Rates(**json.loads(file().read_text(encoding="utf-8"))[profile])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"--gpu {HERE}: profile {profile} was not measured on this machine: run `iy plan --measure` first"
        ) from None


def keep(profile: str, rates: Rates) -> None:
    try:
        known = json.loads(file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    write_json(file(), known | {profile: rates._asdict()})
