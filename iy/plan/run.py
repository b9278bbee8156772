"""From a profile and a number of photos to the lines of a plan."""

import os
from collections.abc import Callable
from typing import NamedTuple

import psutil

from iy import params
from iy.bench.attention import READ
from iy.plan import counts, history, rates, stages, table
from iy.shapes.base import shapes

PER_PERSON, KEPT = 10.0, 1.0  # where nothing was curated yet: choices


class Asked(NamedTuple):
    photos: int
    gpu: str
    gpus: int
    cores: int | None
    memory: float | None
    per_person: float | None
    kept: float | None
    checkpointing: bool


def lengths(settings: params.Params) -> dict[str, int]:
    """Tokens of a caption of some 25 words, by branch: by kind of tokenizer, ByT5's are letters."""
    return {
        name: min(branch.max_length, READ["byt5"] if branch.tokenizer == "ByT5Tokenizer" else READ["ul2"])
        for name, branch in settings.base.text.items()
    }


def measured(settings: params.Params, say: Callable[[str], None]) -> None:
    from iy.plan import measure

    rates.keep(settings.profile, measure.rates(settings, lengths(settings), say))


def lines(settings: params.Params, asked: Asked) -> list[str]:
    """The plan: where its figures come from, a row a stage, what to change."""
    found, machine = planned(settings, asked)
    return [
        f"{asked.photos:,} photos, {asked.gpus} x {asked.gpu}, profile {settings.profile}; {machine.rates.known}",
        *found,
    ]


def planned(settings: params.Params, asked: Asked) -> tuple[list[str], stages.Machine]:
    known, here = rates.of(asked.gpu, settings.profile), asked.gpu == rates.HERE
    cores = asked.cores or ((os.cpu_count() or 1) if here else 16 * asked.gpus)
    host = 1e9 * asked.memory if asked.memory else float(psutil.virtual_memory().total) if here else 128e9 * asked.gpus
    machine = stages.Machine(known, asked.gpus, cores, known.memory is None)
    seen = counts.seen(settings) or (PER_PERSON, KEPT)
    each, kept = asked.per_person or seen[0], seen[1] if asked.kept is None else asked.kept
    unit = stages.units(shapes(settings.base), settings, lengths(settings), asked.checkpointing)
    number = counts.estimate(settings, asked.photos, each, kept)
    found = stages.everything(settings, number, unit, machine)
    if here and (last := history.last_run(settings)):
        then = counts.estimate(settings, last[0], each, kept)
        found = history.corrected(found, stages.everything(settings, then, unit, machine), last[1])
    said = f"{number.people:,} people, {number.train:,} photos to learn from, {number.pairs:,} pairs"
    return [said, *table.rows(found), *table.advice(settings, number, unit, machine, found, host)], machine
