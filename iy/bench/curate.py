"""Curating beside its bound: the slowest of its models, run bare on the same photos on as many cores.

Bare: inputs made beforehand, nothing done with the answers; the best of all rounds. Ours: their median, all of curate
from shards to the table, with the start of its processes; a captioner is loaded before either clock starts. Two
comparisons: with captions, as a collection without any needs them (the captioner is by far the slowest model), and
faces only. There detector and recogniser take turns on the same cores, so ours can at best reach `all models`, the rate
of both of them bare.
"""

import logging
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from iy import params, records
from iy.bench import blip
from iy.bench.measure import Case, report
from iy.curate import captions
from iy.curate.run import write_table
from iy.errors import UserError
from iy.faces import dlibnet, load_analyser
from iy.faces.align import DLIB_150, chip
from iy.faces.centerface import FIRST_LOOK, PADDING, SMALLEST, prepare
from iy.faces.weights import Usage
from iy.process import die_with_parent
from iy.storage import read_image, sha256

WARM = 8  # photos that do not count
CAPTION_BATCH = 8
Rows = list[dict]


def run(settings: params.Params, photos: int, captioned: int, workers: list[int], rounds: int) -> dict:
    """Photos per second by number of processes, `rounds` times; `captioned` of the photos in a run with captions."""
    if settings.faces.analyser != "open":
        raise UserError("iy bench curate measures faces.analyser: open")
    table = settings.photos_dir / "photos.parquet"
    rows = [row for row in records.read(table, records.PHOTO) if row["shard"] is not None]
    if not rows:
        raise UserError(f"{table} holds no readable photo: run the stage photos first")
    cases, threads = [], torch.get_num_threads()
    with tempfile.TemporaryDirectory() as aside, quietly():
        blip.save(model := Path(aside, "blip"))
        spread = np.linspace(0, len(rows) - 1, min(captioned, len(rows))).astype(int)
        some = [rows[i] | {"caption": None} for i in spread]
        captioning = with_captioner(settings, model)
        for count in workers:
            torch.set_num_threads(count)
            if some:
                named = f"faces and captions, {count} {'cores' if count > 1 else 'core'}"
                cases += at(named, placed(some, settings, Path(aside, f"some-{count}")), captioning, count, rounds)
        for count in workers:
            named = f"faces, {count} {'cores' if count > 1 else 'core'}"
            cases += at(
                named, placed(repeated(rows, photos), settings, Path(aside, f"all-{count}")), settings, count, rounds
            )
    torch.set_num_threads(threads)
    return report(cases, torch.device("cpu"), photos=photos, captioned=len(some), rounds=rounds)


@contextmanager
def quietly() -> Iterator[None]:
    log = logging.getLogger("iy")
    before = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(before)


def with_captioner(settings: params.Params, model: Path) -> params.Params:
    """Few photos are enough: nobody is held back for validation, everybody's single photo counts."""
    few = {"minimum_per_person": 1, "validation_people": 1, "test_people": 2}
    asked = {"captioner": "transformers", "caption_model": str(model), "caption_batch": CAPTION_BATCH}
    return settings.model_copy(update={"device": "cpu", "curate": settings.curate.model_copy(update=few | asked)})


def repeated(rows: Rows, photos: int) -> Rows:
    """So many rows: the photos in turn under names of their own."""
    return [rows[i % len(rows)] | {"id": sha256(f"{i}".encode())} for i in range(photos)]


def placed(rows: Rows, settings: params.Params, folder: Path) -> Path:
    """A folder of photos with `rows` as its table."""
    folder.mkdir()
    for tar in settings.photos_dir.glob("*.tar"):
        (folder / tar.name).symlink_to(tar.resolve())
    records.write(folder / "photos.parquet", rows, records.PHOTO)
    return folder


def at(name: str, folder: Path, settings: params.Params, count: int, rounds: int) -> list[Case]:
    """With `count` processes; ours and each model bare in turns."""
    changed = settings.model_copy(update={"workers": params.Workers(map="processes", count=count, address=None)})
    rows = records.read(folder / "photos.parquet", records.PHOTO)
    taken: dict[str, list[float]] = {}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as work:
            captions.require(changed)
            table, start = Path(work, "table.parquet"), time.perf_counter()
            write_table(changed, folder, Path(work), table)
            taken.setdefault("ours", []).append(time.perf_counter() - start)
            for model, seconds in bare(rows, table, folder, changed, count).items():
                taken.setdefault(model, []).append(seconds)
    ours = len(rows) / float(np.median(taken.pop("ours")))
    rate = {model: len(rows) / min(seconds) for model, seconds in taken.items()}  # a bound: the best that was seen
    slowest, together = min(rate, key=rate.__getitem__), 1 / sum(1 / one for one in rate.values())
    return [
        Case(name, f"slowest model bare ({slowest})", ours, rate[slowest], "photos/s"),
        Case(name, "all models bare", ours, together, "photos/s"),
    ]


def bare(rows: Rows, table: Path, folder: Path, settings: params.Params, count: int) -> dict[str, float]:
    """Seconds of each model on all rows, shared by `count` processes; the captioner takes as many cores by itself."""
    shares = [(rows[k::count], folder, settings.faces, settings.usage, settings.device) for k in range(count)]
    with ProcessPoolExecutor(count, get_context("spawn"), die_with_parent) as pool:
        each = list(pool.map(bare_share, shares))
    found = {name: max(one[name] for one in each) for name in each[0]}
    if settings.curate.captioner == "transformers":
        found["captioner"] = captioning(records.accepted(records.read(table, records.PHOTO)), folder, settings.curate)
    return found


def captioning(rows: Rows, folder: Path, curate: params.Curate) -> float:
    """Seconds of the captioner on the photos that ours had it describe, in the same batches."""
    captioner = captions.opened(curate.caption_model, curate.caption_batch, "cpu")
    batches = [rows[start : start + curate.caption_batch] for start in range(0, len(rows), curate.caption_batch)]
    inputs = [captioner.inputs([Image.fromarray(read_image(folder, row)) for row in some]) for some in batches]
    start = time.perf_counter()
    for one in inputs:
        captioner.answers(one)
    return time.perf_counter() - start


def bare_share(job: tuple[Rows, Path, params.Faces, Usage, str]) -> dict[str, float]:
    """Seconds of the face models on one process's share of the photos."""
    rows, folder, faces, usage, device = job
    analyser: Any = load_analyser(faces, usage, device)  # the networks of the open one are measured
    canvases, chips = [], []
    for row in rows:
        image = read_image(folder, row)
        side = min(image.shape[:2])
        canvas = prepare(image, min(max(side, SMALLEST), FIRST_LOOK) / side, PADDING)[0]
        canvases.append({"input.1": canvas.transpose(2, 0, 1)[None].astype(np.float32)})
        if found := analyser.detect(image):
            aligned = chip(image, found[0].landmarks, DLIB_150, dlibnet.SIDE)
            chips.append({"chip": np.concatenate([dlibnet.blob(aligned), dlibnet.blob(aligned[:, ::-1])])})
    return {
        "detector": seconds(analyser.detector.network, canvases),
        "recogniser": seconds(analyser.recogniser.network, chips),
    }


def seconds(network, inputs: list[dict[str, np.ndarray]]) -> float:
    for one in inputs[:WARM]:
        network.run(None, one)
    start = time.perf_counter()
    for one in inputs:
        network.run(None, one)
    return time.perf_counter() - start
