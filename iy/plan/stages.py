"""Seconds, disk and memory of every stage: what it does, counted, over how fast the machine does it."""

from typing import NamedTuple

from iy import params
from iy.diffusion import Base
from iy.plan.counts import Counts, examples, filled
from iy.plan.rates import Rates
from iy.shapes import memory, work
from iy.shapes.memory import Held, guided_parts
from iy.shapes.work import Lengths, Step

PIXEL_BYTES = 1.6  # of a photograph as PNG: a choice; of the studio's renders it is measured 1.5 to 1.7
ROW_BYTES = 2_000  # that a photo adds to curation's memory: one to two thousand, tests/test_scale.py
RECORD_BYTES = 5_000  # of the same on disk: a choice
PROCESS_BYTES = 1.3e9  # of a stage's process before it opens anything: measured, two cores, 2026-11-27
WORKER_BYTES = 0.6e9  # of a worker with the face models: measured, two cores, 2026-11-27
EXAMPLE_BYTES = 200  # of an example in a training's memory, whose tensors lie on disk: measured, two cores, 2026-11-27
FIXED = {  # of a stage, over the seconds that its process takes to import: measured, two cores, 2026-11-27
    "photos": 1,
    "curate": 0.8,
    "finetune": 2,
    "synpairs": 2,
    "select": 0.25,
    "evaluate": 2,
    "register": 1,
}
BACKWARD = 3  # forward and backward over forward alone


class Unit(NamedTuple):
    """FLOP of one piece of each kind of work, and the shapes that memory comes from."""

    picture: float
    caption: float
    prompt: float  # a caption of full length, as drawing reads it
    decode: float
    step: Step
    pair_evaluation: float  # of one picture of SynPairs, all of guidance's parts
    cell_evaluation: float
    caption_bytes: float
    picture_bytes: float  # of its latents and its face's crop, as training reads them
    weights: float
    held: dict[str, Held]


class Stage(NamedTuple):
    """Seconds on all GPUs together; bytes."""

    name: str
    seconds: float
    disk: float
    gpu: float
    host: float


class Machine(NamedTuple):
    rates: Rates
    gpus: int
    cores: int
    cpu: bool  # there is no GPU: what a card would hold is host memory


def units(base: Base, settings: params.Params, lengths: Lengths, checkpointing: bool) -> Unit:
    step, held = memory.of_profile(base, settings, memory.longest(base), checkpointing)
    captions = work.encode_captions(base, 1, lengths)

    def evaluation(how: params.SynPairs | params.Draw) -> float:
        parts = guided_parts(how.guidance, how.identity_guidance)
        return work.denoising(base, settings, 1, parts, memory.longest(base)).flops

    latents = work.encode_pictures(base, 1)
    return Unit(
        latents.flops,
        captions.flops,
        work.encode_captions(base, 1, memory.longest(base)).flops,
        work.decode_pictures(base, 1).flops,
        work.training_step(base, settings, lengths, checkpointing),
        evaluation(settings.synpairs),
        evaluation(settings.draw),
        captions.result * base.dtype.itemsize / 2,
        latents.result * base.dtype.itemsize / 2 + 3 * base.vision.config.image_size**2,
        float(sum(work.part_bytes(base).values())),
        {one.stage: one for one in held},
    )


def everything(settings: params.Params, counts: Counts, unit: Unit, machine: Machine) -> list[Stage]:
    """The stages in the order in which they run."""
    finetuned = [finetune(number, settings, counts, unit, machine) for number in settings.finetune.stages]
    return [
        photos(settings, counts, machine),
        curate(settings, counts, machine),
        finetuned[0],
        synpairs(settings, counts, unit, machine),
        finetuned[1],
        Stage("select", fixed("select", machine), RECORD_BYTES * counts.accepted, 0, PROCESS_BYTES / 2),
        *finetuned[2:],
        evaluate(settings, counts, unit, machine),
        register(unit, machine),
    ]


def fixed(stage: str, machine: Machine) -> float:
    """Seconds that do not grow: imports, models that are opened, reports."""
    return FIXED[stage] * machine.rates.start


def megapixels(settings: params.Params) -> float:
    """Of one stored photo."""
    section = settings.photos
    return (section.size if section.source == "studio" else section.maximum_side) ** 2 / 1e6


def workers(settings: params.Params, machine: Machine) -> int:
    return 1 if settings.workers.map == "serial" else min(settings.workers.count, machine.cores)


def photos(settings: params.Params, counts: Counts, machine: Machine) -> Stage:
    each, size = machine.rates.seconds, megapixels(settings)
    one = each["render"] if settings.photos.source == "studio" else each["read"] * size
    seconds = fixed("photos", machine) + counts.photos * one / workers(settings, machine)
    return Stage("photos", seconds, counts.photos * size * 1e6 * PIXEL_BYTES, 0, PROCESS_BYTES)


def curate(settings: params.Params, counts: Counts, machine: Machine) -> Stage:
    count, each = workers(settings, machine), machine.rates.seconds
    one = sum(each.get(kind, 0) * times for kind, (times, _) in of_photos(settings).items())
    seconds = fixed("curate", machine) + counts.photos * (each["faces"] / count + one)
    host = PROCESS_BYTES + count * WORKER_BYTES + counts.photos * ROW_BYTES
    return Stage("curate", seconds, counts.photos * RECORD_BYTES, 0, host)


def of_photos(settings: params.Params) -> dict[str, tuple[int, str]]:
    """Models of others that look at every photo, in one process: by kind of rate how many, and by which settings."""
    found = {"caption": (int(settings.curate.captioner == "transformers"), "curate.captioner")}
    return found | {"classify": (len(settings.curate.classifiers), "curate.classifiers")}


def of_pairs(settings: params.Params) -> dict[str, tuple[int, str]]:
    """Likewise of every pair."""
    return {"rewrite": (int(settings.synpairs.rewriter != "grammar"), "synpairs.rewriter")}


def finetune(
    number: params.StageNumber, settings: params.Params, counts: Counts, unit: Unit, machine: Machine
) -> Stage:
    stage, training, flops = settings.finetune.stages[number], settings.finetune.training, machine.rates.flops
    rows = examples(settings, counts, stage) + counts.validation
    pictures, captions = encoded(number, settings, counts)
    opened = 2 * machine.rates.seconds["open"] * megapixels(settings)  # once for the target, once for the reference
    encoding = pictures * (unit.picture / flops["pictures"] + opened) + captions * unit.caption / flops["captions"]
    validations = -(-stage.steps // training.validate_every) if counts.validation else 0
    batches = min(training.validation_batches, -(-counts.validation // training.batch))
    forward = unit.step.flops * (training.accumulate * stage.steps + validations * batches / BACKWARD)
    shown = min(training.validation_images, counts.validation) * validations
    seconds = fixed("finetune", machine) + encoding / machine.gpus + forward / flops["train"]
    seconds += drawn(shown, settings.draw, unit, machine)
    held, trained = max(unit.held[name].total for name in ("encode", "train")), unit.step.trained
    disk = 4 * trained + 2 * 16 * trained  # the bundle; two checkpoints while the second is written
    disk += pictures * unit.picture_bytes + captions * unit.caption_bytes
    host = PROCESS_BYTES + 16 * trained + rows * EXAMPLE_BYTES
    return on_card(Stage(f"finetune{number}", seconds, disk, held, host), machine)


def encoded(number: params.StageNumber, settings: params.Params, counts: Counts) -> tuple[int, int]:
    """Pictures and captions that no stage before has encoded: a selection's are known, but captions that are encoded
    together round by what stands beside them."""
    stage = settings.finetune.stages[number]
    rows = examples(settings, counts, stage)
    if stage.set == "selected":
        return 0, rows if settings.finetune.encoding == "batches" else 0
    held = counts.validation if number == "1" else 0
    return rows + held, rows + held


def drawn(count: float, how: params.Draw, unit: Unit, machine: Machine) -> float:
    """Seconds of `count` pictures on one GPU."""
    flops = machine.rates.flops
    one = how.steps * unit.cell_evaluation / flops["draw"] + unit.prompt / flops["captions"]
    return count * (one + unit.decode / flops["decode"])


def synpairs(settings: params.Params, counts: Counts, unit: Unit, machine: Machine) -> Stage:
    """Every pair is drawn once and redrawn in every pass; a face model looks after each."""
    section, flops = settings.synpairs, machine.rates.flops
    evaluations = section.steps + section.rounds * int(section.steps * section.strength)
    looks = 1 + section.rounds
    one = evaluations * unit.pair_evaluation / flops["draw"]
    one += looks * (unit.decode / flops["decode"] + unit.picture / flops["pictures"])
    one += looks * (unit.prompt / flops["captions"] + machine.rates.seconds["faces"])
    one += sum(machine.rates.seconds.get(kind, 0) * times for kind, (times, _) in of_pairs(settings).items())
    gpus = machine.gpus if settings.workers.map == "ray" else 1
    seconds = fixed("synpairs", machine) + filled(counts.pairs, section.batch) * one / gpus
    side = settings.base.image_size**2 * PIXEL_BYTES
    stage = Stage("synpairs", seconds, counts.pairs * side, unit.held["synpairs"].total, PROCESS_BYTES + WORKER_BYTES)
    return on_card(stage, machine)


def evaluate(settings: params.Params, counts: Counts, unit: Unit, machine: Machine) -> Stage:
    looks = counts.drawn * 2 * machine.rates.seconds["faces"]  # two recognisers
    seconds = fixed("evaluate", machine) + drawn(counts.drawn, settings.draw, unit, machine) + looks
    side = settings.base.image_size**2 * PIXEL_BYTES
    stage = Stage("evaluate", seconds, counts.drawn * side, unit.held["evaluate"].total, PROCESS_BYTES + WORKER_BYTES)
    return on_card(stage, machine)


def register(unit: Unit, machine: Machine) -> Stage:
    return Stage("register", fixed("register", machine), unit.weights + 4 * unit.step.trained, 0, PROCESS_BYTES)


def on_card(stage: Stage, machine: Machine) -> Stage:
    """Without a GPU what it would hold is the process's own memory."""
    if not machine.cpu:
        return stage
    return stage._replace(gpu=0, host=stage.host + stage.gpu - memory.RUNTIME)
