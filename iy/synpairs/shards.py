"""Pairs are made shard by shard outside DVC's outs: an interrupted stage continues after its last shard."""

import io
import json
import logging
import shutil
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from iy import resume
from iy.faces import load_analyser
from iy.params import Params, Workers, parse
from iy.storage import atomic_folder, png, write_shard
from iy.synpairs.bounds import Bounds
from iy.synpairs.generators import load_generator
from iy.synpairs.make import Made, Maker
from iy.synpairs.models import uses_bundle
from iy.synpairs.plan import Plan, plans
from iy.synpairs.refiners import load_refiner
from iy.synpairs.rewriters import Rewriter, load_rewriter
from iy.workers import must_be_here, on_ray

SHARD = 256  # pairs
EXAMPLES = 32  # pairs whose every pass the report shows
log = logging.getLogger(__name__)


def work_folder(settings: Params, model: str) -> Path:
    """model: names what draws and refines."""
    sections, table = (
        ("seed", "usage", "base", "model", "faces", "synpairs"),
        settings.data_dir("curate") / "photos.parquet",
    )
    return resume.work_folder(settings, "synpairs", sections, [model, table], [__name__])


class How(NamedTuple):
    """What decides the pairs of given photos, in words that reach other processes. settings: resolved, as JSON;
    model: names what draws and refines; threads: torch's, which round differently when they are more or fewer."""

    settings: str
    model: str
    bounds: Bounds
    threads: int


class Shard(NamedTuple):
    """Number `number`: the pairs of `chosen` photos, the first of which is pair `start`; every `step`th an example."""

    how: How
    folder: Path
    number: int
    start: int
    chosen: list[tuple[dict, int]]
    step: int


def make_all(chosen: Sequence[tuple[dict, int]], how: How, work: Path, workers: Workers) -> list[Path]:
    """One folder per shard under `work`, made here or on Ray's machines; those already there are kept."""
    step = max(1, len(chosen) // EXAMPLES)
    shards = [
        Shard(how, work / f"{number:05d}", number, start, list(chosen[start : start + SHARD]), step)
        for number, start in enumerate(range(0, len(chosen), SHARD))
    ]
    missing = [shard for shard in shards if not shard.folder.exists()]
    if len(missing) < len(shards):
        log.info("%d of %d shards are already there", len(shards) - len(missing), len(shards))
    # torch takes all cores, or the GPU, by itself: processes would only be in each other's way
    made = map(make_shard, missing)
    if workers.map == "ray" and missing:
        made = on_ray(make_shard, missing, workers, chunk=1, cpus=how.threads, gpu=True)
    for _ in tqdm(made, "shards", len(missing), mininterval=1, delay=1, disable=len(missing) <= 1):
        pass
    folders = [shard.folder for shard in shards]
    must_be_here(folders)
    return folders


@lru_cache(1)
def opened(how: How) -> tuple[Maker, Rewriter]:
    """What this process makes its shards with."""
    import torch

    from iy.device import choose_device
    from iy.model import ImagineYourselfPipeline

    torch.set_num_threads(how.threads)
    settings = parse(json.loads(how.settings), "settings")
    rewriter = load_rewriter(settings.synpairs, settings.device)
    device, analyser = choose_device(settings.device), load_analyser(settings.faces, settings.usage, settings.device)
    bundle = None
    if uses_bundle(settings.synpairs):
        bundle = ImagineYourselfPipeline.from_pretrained(settings.bundle_dir(1), device)
    generator = load_generator(settings, bundle, device)
    refiner = load_refiner(settings, bundle, generator, analyser, device)
    return Maker(settings, generator, refiner, analyser, how.model, rewriter.name, how.bounds), rewriter


def make_shard(shard: Shard) -> None:
    maker, rewriter = opened(shard.how)
    planned = plans(shard.chosen, rewriter, maker.settings)
    drawn = [one for one in planned if one.rewrite.problem is None]
    made = dict(zip(map(id, drawn), maker.make(drawn), strict=True)) if drawn else {}
    rows, files, examples = [], [], []
    for i, one in enumerate(planned, shard.start):
        row, data = maker.row(one, made.get(id(one)))
        rows.append(row)
        if data is not None:
            files.append((f"{i:08d}.png", data))
            if i % shard.step == 0:
                examples.append({"id": row["id"], "strip": example(maker, one, made[id(one)])})
    with atomic_folder(shard.folder) as aside:
        if files:
            places = iter(write_shard(aside / f"{shard.number:05d}.tar", files))
            for row in rows:
                if "kept_pass" in row:
                    row.update(next(places)._asdict())
        for shown in examples:
            (aside / f"example-{shown['id']}.png").write_bytes(shown["strip"])
        (aside / "rows.json").write_text(json.dumps(rows), encoding="utf-8")


def example(maker: Maker, plan: Plan, made: Made) -> bytes:
    """Reference, before refinement and passes side by side as PNG: squares of the images' height."""
    return png(np.hstack([maker.reference(plan.reference), *made.images]))


def gather(folders: Sequence[Path], target: Path) -> list[dict]:
    """Copy the shards' tars to `target` and return all rows."""
    rows = []
    for folder in folders:
        rows += json.loads((folder / "rows.json").read_text(encoding="utf-8"))
        for tar in folder.glob("*.tar"):
            shutil.copyfile(tar, target / tar.name)
    return rows


def read_examples(folders: Sequence[Path]) -> dict[str, list[np.ndarray]]:
    """Pair id -> reference, before refinement, passes; uint8 (H, H, 3) each."""
    found = {}
    for folder in folders:
        for path in sorted(folder.glob("example-*.png")):
            strip = np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"))
            found[path.stem.removeprefix("example-")] = np.split(strip, strip.shape[1] // strip.shape[0], 1)
    return found
