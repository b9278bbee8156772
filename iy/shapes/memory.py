"""Bytes that a stage holds on one GPU at its fullest, part by part, read off shapes."""

from typing import NamedTuple

from iy import params
from iy.diffusion import Base
from iy.finetune.store import ROWS
from iy.shapes import work
from iy.shapes.base import weight_bytes
from iy.shapes.work import Lengths, Step, Work

RUNTIME = 1.5e9  # CUDA's context, libraries and the allocator's rounding: a choice, not measured


class Held(NamedTuple):
    """stage; bytes by what they are; `setting`: what to lower or turn on when they do not fit."""

    stage: str
    bytes: dict[str, float]
    setting: str

    @property
    def total(self) -> float:
        return sum(self.bytes.values())


def at_once(settings: params.Params) -> int:
    """Captions that are encoded together; pictures too, unless they are cut to several shapes."""
    return ROWS if settings.finetune.encoding == "batches" else 1


def longest(base: Base) -> dict[str, int]:
    """As many tokens as each text branch reads at most."""
    return {name: branch.max_length for name, branch in base.text.items()}


def guided_parts(guidance: float, identity_guidance: float) -> int:
    """Evaluations of the U-Net for one step of one picture, as `iy.model.guidance.plan` has them."""
    return 1 + (guidance != 1) + (guidance != identity_guidance)


def encoding(base: Base, pictures: Work, captions: Work, step: Step) -> Held:
    """Training's beginning: every part is there, and the model that will be trained, in the base's dtype."""
    added = step.trained * base.dtype.itemsize
    parts = {"frozen parts": float(sum(work.part_bytes(base).values())), "what is added": float(added)}
    return Held(
        "encode", parts | {"working": max(pictures.working, captions.working), "runtime": RUNTIME}, "text.*.int8: true"
    )


def training(base: Base, step: Step) -> Held:
    """Steps: the text encoders are gone, the autoencoder and the base's own vision tower are not."""
    beside = weight_bytes(base.vae) + weight_bytes(base.vision)
    return Held(
        "train",
        {
            "frozen parts": step.frozen_bytes + beside,
            "trained weights": step.trained_bytes,
            "optimiser": step.optimiser_bytes,
            "average (EMA)": step.average_bytes,
            "gradients and activations": step.working,
            "runtime": RUNTIME,
        },
        "finetune.training.batch lower (accumulate higher keeps the step)",
    )


def drawing(stage: str, base: Base, step: Step, unet: Work, decoding: Work) -> Held:
    """Pictures: every part and the finetuned model; the autoencoder works when the U-Net is done."""
    parts = {
        "frozen parts": float(sum(work.part_bytes(base).values())),
        "what is added": float(step.trained * base.dtype.itemsize),
        "working": max(unet.working, decoding.working),
        "runtime": RUNTIME,
    }
    return Held(stage, parts, f"{stage}.batch lower")


def of_profile(base: Base, settings: params.Params, lengths: Lengths, checkpointing: bool) -> tuple[Step, list[Held]]:
    """A training step of the profile and what each kind of work on a GPU holds."""
    step = work.training_step(base, settings, lengths, checkpointing)
    pictures = work.encode_pictures(base, at_once(settings))
    captions = work.encode_captions(base, at_once(settings), lengths)
    held = [encoding(base, pictures, captions, step), training(base, step)]
    for stage, how, batch in (
        ("synpairs", settings.synpairs, settings.synpairs.batch),
        ("evaluate", settings.draw, settings.evaluate.batch),
    ):
        parts = guided_parts(how.guidance, how.identity_guidance)
        unet = work.denoising(base, settings, batch, parts, lengths)
        held.append(drawing(stage, base, step, unet, work.decode_pictures(base, batch)))
    return step, held
