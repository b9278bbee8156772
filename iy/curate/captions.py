"""A sentence per photo: the source's own, or one built from the measured pose, or a transformers model's."""
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from iy import lexicon, params
from iy.curate.filters import reject
from iy.errors import UserError
from iy.records import ACCEPTED
from iy.storage import read_image

TURNED, RAISED, LEANING = 14., 14., 12.      # degrees beyond which a caption says so
log = logging.getLogger(__name__)


def caption(rows: list[dict], folder: Path, curate: params.Curate, device: str) -> list[dict]:
    """Accepted rows without a caption get one, or are rejected (captioner: sidecar)."""
    silent = [i for i, row in enumerate(rows) if row["verdict"] == ACCEPTED and not row["caption"]]
    if not silent:
        return rows
    rows = list(rows)
    if curate.captioner == "sidecar":
        for i in silent:
            rows[i] = reject(rows[i], "no caption beside it, and curate.captioner is sidecar")
        return rows
    say = plain if curate.captioner == "auto" else by_model(folder, curate.caption_model, device)
    for i in tqdm(silent, "captions", mininterval=1, disable=curate.captioner == "auto"):
        rows[i] = rows[i] | {"caption": say(rows[i])}
    return rows


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
    from iy.curate.captioner import Captioner

    captioner = Captioner(model, device)
    return lambda row: captioner(read_image(folder, row))
