"""Curating beside its bound: the slowest of its models, run bare on the same photos in as many processes.

Bare: inputs made beforehand, nothing done with the answers. Ours is all of curate, from shards to verdicts, with the start
of its processes. The models run one after the other on each photo, so on the cores that they share ours can at best reach
`all_models`, the rate of all of them bare; both ratios are given.
"""

import logging
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from iy import params, records
from iy.bench.measure import machine
from iy.curate.run import curate
from iy.errors import UserError
from iy.faces import dlibnet, load_analyser
from iy.faces.align import DLIB_150, chip
from iy.faces.centerface import PADDING, SMALLEST, prepare
from iy.stage import die_with_parent
from iy.storage import read_image, sha256

WARM = 8  # photos that do not count


def run(settings: params.Params, photos: int, workers: list[int], rounds: int) -> dict:
    """Photos per second by number of processes: `ours`, each model `bare`, and ours as a share of the bounds."""
    if settings.faces.analyser != "open":
        raise UserError("iy bench curate measures faces.analyser: open")
    table = settings.photos_dir / "photos.parquet"
    rows = [row for row in records.read(table, records.PHOTO) if row["shard"] is not None]
    if not rows:
        raise UserError(f"{table} holds no readable photo: run the stage photos first")
    with tempfile.TemporaryDirectory() as aside:
        rows = repeated(rows, settings.photos_dir, Path(aside), photos)
        return {"machine": machine_of(), "photos": photos} | {
            str(count): at(settings, Path(aside), rows, count, rounds) for count in workers
        }


def repeated(rows: list[dict], source: Path, folder: Path, photos: int) -> list[dict]:
    """So many rows, the photos in turn under names of their own, as a table in `folder`."""
    for tar in source.glob("*.tar"):
        (folder / tar.name).symlink_to(tar.resolve())
    named = (rows[i % len(rows)] | {"id": sha256(f"{i}".encode())} for i in range(photos))
    records.write(folder / "photos.parquet", found := list(named), records.PHOTO)
    return found


def machine_of() -> dict[str, object]:
    import torch

    return machine(torch.device("cpu"))


def at(settings: params.Params, folder: Path, rows: list[dict], count: int, rounds: int) -> dict:
    """With `count` processes; the median of `rounds`, ours and bare in turns."""
    quiet = logging.getLogger("iy")
    before, taken = quiet.level, {"ours": [], "detector": [], "recogniser": []}
    changed = settings.model_copy(update={"workers": params.Workers(map="processes", count=count, address=None)})
    quiet.setLevel(logging.WARNING)
    try:
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as work:
                start = time.perf_counter()
                curate(changed, folder, Path(work))
                taken["ours"].append(time.perf_counter() - start)
            for name, seconds in bare(rows, folder, changed, count).items():
                taken[name].append(seconds)
    finally:
        quiet.setLevel(before)
    rate = {name: len(rows) / float(np.median(seconds)) for name, seconds in taken.items()}
    slowest, everything = min(rate["detector"], rate["recogniser"]), 1 / (1 / rate["detector"] + 1 / rate["recogniser"])
    found = {"ours": rate.pop("ours"), "bare": rate, "slowest_model": slowest, "all_models": everything}
    return found | {"ours_to_slowest": found["ours"] / slowest, "ours_to_all": found["ours"] / everything}


def bare(rows: list[dict], folder: Path, settings: params.Params, count: int) -> dict[str, float]:
    """Seconds of each model on all rows, shared by `count` processes."""
    shares = [(rows[k::count], folder, settings.faces, settings.usage) for k in range(count)]
    with ProcessPoolExecutor(count, get_context("spawn"), die_with_parent) as pool:
        each = list(pool.map(bare_share, shares))
    return {name: max(one[name] for one in each) for name in each[0]}


def bare_share(job: tuple[list[dict], Path, params.Faces, str]) -> dict[str, float]:
    """Seconds of each model on one process's share of the photos."""
    rows, folder, faces, usage = job
    analyser = load_analyser(faces, usage)
    canvases, chips = [], []
    for row in rows:
        image = read_image(folder, row)
        side = min(image.shape[:2])
        canvas = prepare(image, max(side, SMALLEST) / side, PADDING)[0]
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
