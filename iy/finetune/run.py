"""A finetuning stage from settings to bundle: parent, data, training, lineage."""

import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from accelerate import PartialState

from iy import params
from iy.device import choose_device
from iy.diffusion import Base, TextEncoders, load_base
from iy.errors import UserError
from iy.finetune import data
from iy.finetune.examples import Examples
from iy.finetune.preview import Preview
from iy.finetune.trainer import Trainer
from iy.model import Personaliser, bundle
from iy.params import Params, StageNumber
from iy.resume import work_folder
from iy.storage import file_sha256, folder_sha256, sha256, write_json
from iy.tracking import UNTRACKED, StageRun

STAGE_SECTIONS = ("base", "model", "seed")
WITHOUT_EFFECT = {
    "checkpoint_every",
    "parallel",
    "prefetch",
    "store",
    "stages",
}  # finetune keys that do not change this stage's result

PATIENCE = timedelta(days=2)  # of processes for the one among them that has more to encode


def run(settings: Params, stage: StageNumber, tracked: StageRun = UNTRACKED) -> None:
    """models/<profile>/finetune<N> from stage N−1 (stage 1: from finetune.init)."""
    plan, number = settings.finetune.stages[stage], int(stage)
    device = choose_device(settings.device)
    state = PartialState(cpu=device.type == "cpu", timeout=PATIENCE)  # of several under `accelerate launch`
    paths = data.tables(settings, plan)
    for name, path in paths.items():
        tracked.log_dataset(name, path)
    base = load_base(settings.base, state.device or device)
    model, parent = start(settings, number, base)
    lineage = {
        "stage": number,
        "parent": parent,
        "settings": stage_digest(settings, stage),
        "data": {name: file_sha256(path) for name, path in paths.items()},
    }
    examples, validation = data.load_examples(settings, plan, base, model.vision.image_size)
    base.text = TextEncoders({})  # captions are encoded: the text encoders' memory is free
    base.unet, base.vision = model.unet, model.vision.tower  # whose weights may become parts of what they were
    trainer = Trainer(
        model,
        base.scheduler,
        examples,
        validation,
        settings.finetune,
        plan,
        seed=settings.seed,
        resume=resume_dir(settings, lineage),
        run=tracked,
        preview=preview(settings, model, base, validation, tracked),
    )
    curves = trainer.train()
    if state.is_main_process:
        finish(settings, model, settings.bundle_dir(number), lineage, curves, len(examples))
        for old in resume_dir(settings, lineage).parent.glob(f"finetune{stage}-*"):
            shutil.rmtree(old)


def resume_dir(settings: Params, lineage: dict) -> Path:
    """Checkpoints of exactly this training: of other data, settings, code or parent it never goes on."""
    return work_folder(settings, f"finetune{lineage['stage']}", (), [lineage], [__name__])


def start(settings: Params, stage: int, base: Base) -> tuple[Personaliser, str | None]:
    """The model to go on training and the hash of the bundle it comes from (None: a fresh one)."""
    if stage > 1:
        folder = settings.bundle_dir(stage - 1)
    elif settings.finetune.init == "none":
        return Personaliser(base, settings.model), None
    elif settings.finetune.pretrained is None:
        raise UserError(
            "finetune.init = 'pretrained' needs finetune.pretrained, the folder of a bundle: name it, or use init: none"
        )
    else:
        folder = Path(settings.finetune.pretrained)
    made = bundle.read_config(folder)["model"]
    for key in params.Model.model_fields:
        if key != "alpha" and getattr(made, key) != getattr(settings.model, key):  # alpha: learnt since
            raise UserError(
                f"{folder} was made with model.{key} = {getattr(made, key)!r}, the settings say "
                f"{getattr(settings.model, key)!r}: make them equal, or train from finetune.init: none"
            )
    return bundle.load(folder, base), folder_sha256(folder)


def stage_digest(settings: Params, stage: str) -> str:
    """Hash of the settings that this stage's result depends on."""
    resolved = settings.resolved()
    used = {key: resolved[key] for key in STAGE_SECTIONS}
    used["finetune"] = {key: value for key, value in resolved["finetune"].items() if key not in WITHOUT_EFFECT}
    used["stage"] = resolved["finetune"]["stages"][stage]
    return sha256(json.dumps(used, sort_keys=True).encode())


def preview(
    settings: Params, model: Personaliser, base: Base, validation: Examples | None, tracked: StageRun
) -> Callable[[int], None] | None:
    """What draws and logs the validation picture of a step; None when there is nobody to draw."""
    if validation is None:
        return None
    drawing = Preview(
        model, base, validation, settings.draw, settings.finetune.training.validation_images, settings.seed
    )
    return lambda step: tracked.log_image("validation", step, drawing.draw())


def finish(settings: Params, model: Personaliser, folder: Path, lineage: dict, curves: dict, examples: int) -> None:
    """The bundle with its settings and curves; nothing in it depends on when or where it was made."""
    bundle.save(model, folder, lineage)
    settings.write(folder)
    write_json(folder / "training.json", {"examples": examples, **curves})
