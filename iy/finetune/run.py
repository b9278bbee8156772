"""A finetuning stage from settings to bundle: parent, data, training, lineage."""
import hashlib
import json
import shutil
from pathlib import Path


from iy import params
from iy.diffusion import Base, TextEncoders, choose_device, load_base
from iy.errors import UserError
from iy.finetune import data
from iy.finetune.preview import Preview
from iy.finetune.trainer import Trainer
from iy.model import Personaliser, bundle
from iy.params import Params
from iy.storage import file_sha256, sha256, write_json
from iy.tracking import stage_run

STAGE_SECTIONS = ("base", "model", "seed")
WITHOUT_EFFECT = {"checkpoint_every", "stages"}      # finetune keys that do not change this stage's result


def run(settings: Params, stage: str) -> None:
    """`python -m iy.finetune --stage N`: models/<profile>/finetune<N> from stage N−1 (stage 1: from finetune.init)."""
    plan, number = settings.finetune.stages[stage], int(stage)
    with stage_run(settings, f"finetune{stage}") as tracked:
        paths = data.tables(settings, plan)
        for name, path in paths.items():
            tracked.log_dataset(name, path)
        base = load_base(settings.base, choose_device(settings.device))
        model, parent = start(settings, number, base)
        lineage = {"stage": number, "parent": parent, "settings": stage_digest(settings, stage),
                   "data": {name: file_sha256(path) for name, path in paths.items()}}
        resume = Path(".iy", "resume", settings.profile, f"finetune{stage}-{sha256(json.dumps(lineage, sort_keys=True).encode())[:16]}")
        examples, validation = data.load_examples(settings, plan, base, model.vision.image_size)
        base.text = TextEncoders({})                  # captions are encoded: the text encoders' memory is free
        draw = preview(settings, model, base, validation)
        trainer = Trainer(model, base.scheduler, examples, validation, settings.finetune, plan, seed=settings.seed,
                          resume=resume, run=tracked, preview=draw and (lambda step: tracked.log_image("validation", step, draw())))
        curves = trainer.train()
        if trainer.accelerator.is_main_process:
            finish(settings, model, settings.bundle_dir(number), lineage, curves, len(examples))
            shutil.rmtree(resume, ignore_errors=True)


def start(settings: Params, stage: int, base: Base) -> tuple[Personaliser, str | None]:
    """The model to go on training and the hash of the bundle it comes from (None: a fresh one)."""
    if stage > 1:
        folder = settings.bundle_dir(stage - 1)
    elif settings.finetune.init == "none":
        return Personaliser(base, settings.model), None
    elif settings.finetune.pretrained is None:
        raise UserError("finetune.init = 'pretrained' needs finetune.pretrained, the folder of a bundle: name it, or use init: none")
    else:
        folder = Path(settings.finetune.pretrained)
    made = bundle.read_config(folder)["model"]
    for key in params.Model.model_fields:
        if key != "alpha" and getattr(made, key) != getattr(settings.model, key):      # alpha: learnt since
            raise UserError(f"{folder} was made with model.{key} = {getattr(made, key)!r}, the settings say "
                            f"{getattr(settings.model, key)!r}: make them equal, or train from finetune.init: none")
    return bundle.load(folder, base), folder_sha256(folder)


def folder_sha256(folder: Path) -> str:
    """One hash for a bundle: over the names and contents of its weights and configuration."""
    files = sorted(path for path in folder.rglob("*") if path.suffix == ".safetensors" or path.name == "config.json")
    whole = hashlib.sha256()
    for path in files:
        whole.update(f"{path.relative_to(folder).as_posix()} {file_sha256(path)}\n".encode())
    return whole.hexdigest()


def stage_digest(settings: Params, stage: str) -> str:
    """Hash of the settings that this stage's result depends on."""
    resolved = settings.resolved()
    used = {key: resolved[key] for key in STAGE_SECTIONS}
    used["finetune"] = {key: value for key, value in resolved["finetune"].items() if key not in WITHOUT_EFFECT}
    used["stage"] = resolved["finetune"]["stages"][stage]
    return sha256(json.dumps(used, sort_keys=True).encode())


def preview(settings: Params, model: Personaliser, base: Base, validation: object):
    """What draws the validation picture, or None when there is nobody to draw."""
    count = settings.finetune.validation_images
    return Preview(model, base, validation, settings.evaluate, count, settings.seed).draw if validation else None


def finish(settings: Params, model: Personaliser, folder: Path, lineage: dict, curves: dict, examples: int) -> None:
    """The bundle with its settings and curves; nothing in it depends on when or where it was made."""
    bundle.save(model, folder, lineage)
    settings.write(folder)
    write_json(folder / "training.json", {"examples": examples, **curves})
