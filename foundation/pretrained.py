"""`pretrained` is stage 1 run long: `iy.finetune`'s own Trainer, on the frozen foundation, one photo per person.

The reference is the masked crop of the very picture to be drawn, as in the paper's real stages, and the caption is what
a captioner would say: pose, expression, gaze and light are named in some third of them, now and then wrongly.
"""

import logging
import signal
import threading
from pathlib import Path

import numpy as np
import torch

from foundation import autoencoder
from foundation.captions import CAPTIONS_OF_PHOTOS, of_photos
from foundation.renders import Renders
from iy import params
from iy.diffusion import Base, to_pixels
from iy.diffusion.encode import encode_text
from iy.faces.crop import face_crop
from iy.finetune.examples import Examples, PaddedTexts
from iy.finetune.trainer import Trainer
from iy.model import Personaliser
from iy.model.vision import resize

RATE = 3e-4
ENCODE = 256  # captions encoded at once
log = logging.getLogger(__name__)


def settings(base: params.Params, steps: int, rate: float, batch: int, precision: str) -> params.Params:
    """The profile's settings, with those of the long stage 1."""
    stage = base.finetune.stages["1"].model_copy(update={"steps": steps, "learning_rate": rate, "warmup": 100})
    training = base.finetune.training.model_copy(
        update={
            "batch": batch,
            "precision": precision,
            "reference_other": 0.0,
            "ema_decay": 0.998,
            "validate_every": 250,
        }
    )
    changed = base.finetune.model_copy(
        update={
            "training": training,
            "checkpoint_every": 250,
            "stages": base.finetune.stages | {"1": stage},
        }
    )
    return base.model_copy(update={"finetune": changed})


def examples(renders: Renders, base: Base, model: params.Model, mirror: bool, size: int) -> Examples:
    """Photos whose face was found, `CAPTIONS_OF_PHOTOS` captions each; `mirror`: and what a mirror shows of them."""
    rows = np.flatnonzero(renders.found)
    device = base.device
    latents = autoencoder.latents(base.vae, autoencoder.tensor(renders.images[rows]))
    crops = torch.stack([crop(renders, row, model, base.image_size, size) for row in rows]).to(device)
    box = renders.box[rows] * (latents.shape[-1] / base.image_size)
    texts = of_photos(renders, rows, False)
    if mirror:
        turn = rows[renders.turns[rows]]
        latents = torch.cat([latents, autoencoder.latents(base.vae, autoencoder.tensor(flipped(renders.images[turn])))])
        crops = torch.cat([crops, crops[torch.from_numpy(renders.turns[rows]).to(device)].flip(3)])
        other = renders.box[turn] * (latents.shape[-1] / base.image_size)
        other[:, [0, 2]] = latents.shape[-1] - other[:, [2, 0]]
        box, texts = np.concatenate([box, other]), texts + of_photos(renders, turn, True)
    shown = np.repeat(np.arange(len(box)), CAPTIONS_OF_PHOTOS)
    chosen = torch.from_numpy(shown).to(device)
    return Examples(
        latents[chosen],
        encoded(["", *texts], base),
        1 + np.arange(len(texts)),
        0,
        crops,
        shown,
        [np.array([], int)] * len(shown),
        box[shown].astype(np.float32),
    )


def flipped(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images[:, :, ::-1])


def crop(renders: Renders, row: int, model: params.Model, side: int, size: int) -> torch.Tensor:
    """The masked reference as uint8 (3, size, size), cut as the stages do."""
    cut = face_crop(
        renders.images[row], renders.box[row], renders.landmarks[row], side, model.crop_margin, model.mask_face
    )
    return ((resize(to_pixels([cut]), size)[0] + 1) * 127.5).round().to(torch.uint8)


def encoded(texts: list[str], base: Base) -> PaddedTexts:
    """Every branch's states on the base's device, bfloat16, padded to the branch's longest."""
    found: dict[str, list[torch.Tensor]] = {}
    lengths: dict[str, list[int]] = {}
    for first in range(0, len(texts), ENCODE):
        for name, (hidden, mask) in encode_text(base, texts[first : first + ENCODE]).items():
            lengths.setdefault(name, []).extend(mask.sum(1).tolist())
            found.setdefault(name, []).append(hidden.bfloat16())
    longest = {name: max(part.shape[1] for part in parts) for name, parts in found.items()}
    states = {
        name: torch.cat([torch.nn.functional.pad(x, (0, 0, 0, longest[name] - x.shape[1])) for x in parts])
        for name, parts in found.items()
    }
    return PaddedTexts(states, {name: np.array(several) for name, several in lengths.items()})


def train(
    base: Base,
    photos: Renders,
    held: Renders,
    chosen: params.Params,
    resume: Path,
    seconds: float | None,
) -> tuple[Personaliser, dict]:
    """A fresh adapter after the long stage 1, and its curves. Ended by time it keeps its checkpoint, and can go on."""
    model = Personaliser(base, chosen.model)
    size = model.vision.image_size
    trainer = Trainer(
        model,
        base.scheduler,
        examples(photos, base, chosen.model, True, size),
        examples(held, base, chosen.model, False, size),
        chosen.finetune,
        chosen.finetune.stages["1"],
        seed=chosen.seed,
        resume=resume,
    )
    timer = threading.Timer(seconds, lambda: signal.raise_signal(signal.SIGTERM)) if seconds else None
    if timer:
        timer.daemon = True
        timer.start()
    try:
        trainer.train()
    except SystemExit as ended:
        if not timer or timer.is_alive():
            raise
        log.info("time is over: %s", ended)
        trainer.ema.copy_to(trainer.weights.values())
    finally:
        if timer:
            timer.cancel()
    return model, trainer.curves
