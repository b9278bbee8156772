"""The rehearsal in earnest: every stage runs at the profile's sizes on a few photos, two steps each, weights random.

In a folder of its own below `.iy/`, which is removed at the end; a GPU's peak memory stands beside each stage.
"""

import contextlib
import importlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml

from iy import overrides, params, project, records, tracking
from iy.device import choose_device
from iy.errors import one_line
from iy.rehearse import random_parts
from iy.rehearse.checks import FAILS, Finding

STAGES = (
    "photos",
    "curate",
    "finetune1",
    "synpairs",
    "finetune2",
    "select",
    "finetune3",
    "finetune4",
    "evaluate",
    "register",
)
FEW: dict[str, Any] = {
    "workers.map": "serial",
    "curate.minimum_size": 1,
    "curate.minimum_face": 1,
    "curate.minimum_face_share": 0.0,
    "curate.minimum_sharpness": 0.0,
    "curate.maximum_clipped": 1.0,
    "curate.grouping": "label",
    "curate.minimum_per_person": 1,
    "curate.wrong_names": "keep",
    "curate.validation_people": 1,
    "curate.test_people": 2,
    "curate.classifiers": {},
    "curate.captioner": "auto",
    "curate.caption_model": None,
    "synpairs.pairs_per_person": 1,
    "synpairs.rewriter": "grammar",
    "synpairs.rewriter_model": None,
    "synpairs.generator": None,
    "synpairs.start": "photo",
    "synpairs.refiner": "bundle",
    "synpairs.refiner_model": None,
    "synpairs.steps": 2,
    "synpairs.passes": 1,
    "synpairs.strength": 0.5,
    "synpairs.false_match_rate": 1.0,
    "synpairs.upper_quantile": 1.0,
    "synpairs.fallback_best": 1.0,
    "select.real_share": 1.0,
    "select.pair_share": 1.0,
    "select.decisions": None,
    "select.review": "optional",
    "finetune.init": "none",
    "finetune.pretrained": None,
    "finetune.store": None,
    "finetune.checkpoint_every": 1,
    "finetune.training.identity_model": None,
    "finetune.training.identity_weight": 0.0,
    "finetune.training.validate_every": 2,
    "finetune.training.validation_images": 1,
    "finetune.training.validation_batches": 1,
    "draw.steps": 2,
    "evaluate.people": 2,
    "evaluate.prompts": 2,
    "evaluate.seeds": 1,
    "evaluate.probes": None,
    "evaluate.together": 0,
    "evaluate.bootstrap": 10,
}
PEOPLE, PER_PERSON, SIDE = 6, 2, 512
OURS = {"IY_PIPELINE", "IY_RUN", "IY_ENDING"}


def rehearse(settings: params.Params, photos: Path | None) -> Iterator[Finding]:
    """photos: a folder with a sub-folder of photographs per person, at least six; None: the studio renders some."""
    home = project.state() / "rehearse"
    shutil.rmtree(home, ignore_errors=True)
    device = choose_device(settings.device)
    start = time.monotonic()
    base = random_parts.write(settings.base, home.resolve() / "parts", device)
    clip = settings.evaluate.clip and random_parts.clip(home.resolve() / "clip", device)
    yield Finding("ok", "random weights", f"{weight(home) / 1e9:.1f} GB written in {time.monotonic() - start:.0f} s")
    few = cut(settings, base, clip, photos)
    try:
        with contextlib.chdir(prepared(home / "project", few)), own_store():
            for stage in STAGES:
                found = rehearsed(few, stage, device)
                yield found
                if found.state == FAILS:
                    return
                if stage == "synpairs":
                    accept(few)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def cut(settings: params.Params, base: params.Base, clip: str | None, photos: Path | None) -> params.Params:
    """The settings for a few photos and steps; sizes, batches, precision and classes stay."""
    changes = FEW | {"base": base.model_dump(mode="json", by_alias=True), "evaluate.clip": clip}
    for number in settings.finetune.stages:
        changes |= {f"finetune.stages.{number}.steps": 2, f"finetune.stages.{number}.warmup": 0}
    few = {"source": "studio", "people": PEOPLE, "per_person": PER_PERSON, "size": min(SIDE, settings.base.image_size)}
    if photos is not None:
        few = {"source": "folder", "path": str(photos.resolve())}
    few |= {"licence": "CC0-1.0", "consent": "synthetic"}
    changes |= {f"photos.{name}": value for name, value in few.items()}
    return params.parse(overrides.changed(settings.resolved(), changes), "rehearsal")


def prepared(folder: Path, settings: params.Params) -> Path:
    """A project with these settings and nothing else."""
    (folder / "profiles").mkdir(parents=True)
    (folder / "erasures").mkdir()
    (folder / "erasures" / "erased.txt").touch()
    (folder / "params.yaml").write_text(f"profile: {settings.profile}\n", encoding="utf-8")
    values = {name: value for name, value in settings.resolved().items() if name != "profile"}
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    (folder / "profiles" / f"{settings.profile}.yaml").write_text(text, encoding="utf-8")
    return folder


@contextlib.contextmanager
def own_store() -> Iterator[None]:
    """A rehearsal's runs and its model go to a store of its own, whatever the environment names."""
    named = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("MLFLOW_") or name in OURS}
    try:
        yield
    finally:
        os.environ.update(named)


def rehearsed(settings: params.Params, stage: str, device: torch.device) -> Finding:
    """One stage, as `python -m iy.<stage>` does it; whatever it raises is told in one line."""
    start, cuda = time.monotonic(), device.type == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    name, number = (stage[:-1], {"stage": stage[-1]}) if stage[-1].isdigit() else (stage, {})
    try:
        with tracking.stage_run(settings, stage) as tracked:
            importlib.import_module(f"iy.{name}.run").run(settings, **number, tracked=tracked)
    except (Exception, SystemExit) as error:  # whatever it is: that is what a rehearsal is for
        return Finding(FAILS, stage, f"{type(error).__name__}: {one_line(error, 400)}")
    held = f", {torch.cuda.max_memory_allocated() / 1e9:.1f} GB on the GPU" if cuda else ""
    return Finding("ok", stage, f"{time.monotonic() - start:.0f} s{held}")


def accept(settings: params.Params) -> None:
    """Every pair that was drawn: random weights draw no faces, and the stages after this one need pairs."""
    table = settings.data_dir("synpairs") / "pairs.parquet"
    rows = records.read(table, records.PAIR)
    drawn = {"verdict": records.ACCEPTED, "reason": "rehearsed"}
    records.write(table, [row | drawn if row["shard"] else row for row in rows], records.PAIR)


def weight(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
