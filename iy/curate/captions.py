"""A sentence per photo: the source's own, or one built from the measured pose, or a transformers model's."""

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from iy import lexicon, params, resume
from iy.curate.filters import reject
from iy.errors import UserError
from iy.params import Params
from iy.records import ACCEPTED
from iy.storage import read_image, write_json

if TYPE_CHECKING:
    from iy.curate.captioner import Captioner

TURNED, RAISED, LEANING = 14.0, 14.0, 12.0  # degrees beyond which a caption says so


def refuse_silent(rows: list[dict], curate: params.Curate) -> list[dict]:
    """captioner: sidecar rejects the accepted rows without a caption."""
    if curate.captioner != "sidecar":
        return rows
    return [
        reject(row, "no caption beside it, and curate.captioner is sidecar") if silent(row) else row for row in rows
    ]


def silent(row: dict) -> bool:
    return row["verdict"] == ACCEPTED and not row["caption"]


def caption(rows: list[dict], folder: Path, settings: Params, kept: Path) -> list[dict]:
    """Accepted rows without a caption get one; those with the same id, the same. kept: see `by_model`."""
    silenced = {row["id"]: row for row in rows if silent(row)}
    if not silenced:
        return rows
    if settings.curate.captioner == "auto":
        said = {name: plain(row) for name, row in silenced.items()}
    else:
        said = by_model(silenced, folder, settings, kept)
    return [row | {"caption": said[row["id"]]} if silent(row) else row for row in rows]


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


def by_model(rows: dict[str, dict], folder: Path, settings: Params, kept: Path) -> dict[str, str]:
    """Captions by photo id.

    The file `kept` has them after every batch: when the stage goes on, the model is asked for those that it lacks.
    """
    curate, said = settings.curate, json.loads(kept.read_text()) if kept.exists() else {}
    captioner = opened(curate.caption_model, curate.caption_batch, settings.device)
    missing = [name for name in rows if name not in said]
    for start in range(0, len(missing), curate.caption_batch):
        names = missing[start : start + curate.caption_batch]
        said |= dict(zip(names, captioner([read_image(folder, rows[name]) for name in names]), strict=True))
        write_json(kept, said)
    return said


def require(settings: Params) -> None:
    """Open the model, where one is asked for: what is wrong with it is told before the long work."""
    if settings.curate.captioner == "transformers":
        opened(settings.curate.caption_model, settings.curate.caption_batch, settings.device)


@cache
def opened(model: str | None, batch: int, device: str) -> "Captioner":
    if model is None:
        raise UserError(
            "curate.captioner: transformers needs curate.caption_model: name a folder or a model id, "
            "such as an image-to-text model saved with save_pretrained"
        )
    from iy.curate.captioner import Captioner
    from iy.device import choose_device

    return Captioner(model, batch, choose_device(device))


def place(work: Path, curate: params.Curate) -> Path:
    """The folder in `work` for what the model says."""
    models = [curate.caption_model] if curate.captioner == "transformers" and curate.caption_model else []
    return resume.place(work, "captions", models, curate.caption_batch)
