"""A sentence per photo: the source's own, or one built from the measured pose, or a transformers model's."""
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from iy import lexicon, params
from iy.curate.filters import reject
from iy.errors import UserError
from iy.params import Params
from iy.records import ACCEPTED
from iy.storage import read_image

if TYPE_CHECKING:
    from iy.curate.captioner import Captioner

TURNED, RAISED, LEANING = 14., 14., 12.      # degrees beyond which a caption says so
log = logging.getLogger(__name__)


def refuse_silent(rows: list[dict], curate: params.Curate) -> list[dict]:
    """captioner: sidecar rejects the accepted rows without a caption."""
    if curate.captioner != "sidecar":
        return rows
    return [reject(row, "no caption beside it, and curate.captioner is sidecar") if silent(row) else row for row in rows]


def silent(row: dict) -> bool:
    return row["verdict"] == ACCEPTED and not row["caption"]


def caption(rows: list[dict], folder: Path, params: Params) -> list[dict]:
    """Accepted rows without a caption get one."""
    if not any(map(silent, rows)):
        return rows
    curate = params.curate
    say = plain if curate.captioner == "auto" else by_model(folder, curate.caption_model, device(params))
    return [row | {"caption": say(row)} if silent(row) else row for row in rows]


def plain(row: dict) -> str:
    """What was measured, in the lexicon's words; which of them depends on the photo's bytes only."""
    rng = np.random.default_rng(int(row["id"][:16], 16))
    return lexicon.describe({"pose": named_pose(row["yaw"], row["pitch"], row["roll"])}, rng, person=False)


def named_pose(yaw: float, pitch: float, roll: float) -> str:
    """The lexicon's word for a head pose in degrees."""
    across = "" if abs(yaw) < TURNED else "right" if yaw > 0 else "left"
    if pitch > RAISED:
        return f"up-{across}" if across else "up"
    if across:
        return across
    if pitch < -RAISED:
        return "down"
    if abs(roll) > LEANING:
        return "tilt-right" if roll > 0 else "tilt-left"
    return "frontal"


def by_model(folder: Path, model: str | None, device: str) -> Callable[[dict], str]:
    if model is None:
        raise UserError("curate.captioner: transformers needs curate.caption_model: name a folder or a model id, "
                        "such as an image-to-text model saved with save_pretrained")
    return lambda row: opened(model, device)(read_image(folder, row))


@cache
def opened(model: str, device: str) -> "Captioner":
    from iy.curate.captioner import Captioner

    return Captioner(model, device)


def device(params: Params) -> str:
    if params.device != "auto":
        return params.device
    if params.curate.captioner != "transformers":
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
