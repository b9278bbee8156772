"""The rehearsal on shapes: every stage's work in the real classes and sizes on the meta device, on any computer."""

from collections.abc import Iterator

from iy import params
from iy.errors import UserError
from iy.rehearse import checks, widths
from iy.rehearse.checks import FAILS, Finding
from iy.shapes import memory
from iy.shapes.base import shapes

GB = 1e9


def rehearse(settings: params.Params, card: float, checkpointing: bool = False) -> Iterator[Finding]:
    """card: gigabytes of one GPU. What does not fit together is told before anything is counted."""
    yield from checks.everything(settings)
    try:
        base = shapes(settings.base)
    except UserError as error:
        yield Finding(FAILS, "base", str(error))
        return
    fits = list(widths.everything(base, settings))
    yield from fits
    if any(one.state == FAILS for one in fits):
        return
    step, held = memory.of_profile(base, settings, memory.longest(base), checkpointing)
    training = settings.finetune.training
    yield Finding(
        "ok",
        "finetune",
        f"a step of {training.batch}: {step.flops / 1e12:.3g} TFLOP, {step.trained / 1e6:,.0f} M weights trained",
    )
    for one in held:
        yield room(one, card)


def room(held: memory.Held, card: float) -> Finding:
    """Whether a kind of work fits the card, and what takes most where it does not."""
    total, largest = held.total / GB, max(held.bytes, key=lambda name: held.bytes[name])
    if total <= card:
        return Finding("ok", f"memory, {held.stage}", f"{total:.1f} of {card:.0f} GB")
    return Finding(
        FAILS,
        f"memory, {held.stage}",
        f"{total:.1f} GB, the GPU has {card:.0f}; {largest}: {held.bytes[largest] / GB:.1f} GB; try {held.setting}",
    )
