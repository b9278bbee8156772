"""Pairs are made shard by shard in a work folder outside DVC's outs: an interrupted stage continues after its last
shard."""

import io
import json
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from iy.params import Params
from iy.storage import atomic_folder, file_sha256, png, sha256, write_shard
from iy.synpairs.make import Made, Maker
from iy.synpairs.plan import Plan

SHARD = 256  # pairs
EXAMPLES = 32  # pairs whose every pass the report shows
log = logging.getLogger(__name__)


def folder_digest(folder: Path) -> str:
    """sha256 of the names and contents of a folder's files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return sha256("\n".join(f"{path.relative_to(folder)} {file_sha256(path)}" for path in files).encode())


def work_folder(params: Params, bundle: str) -> Path:
    """Named by everything that decides the pairs, so that shards of other settings are never taken for these."""
    sections = params.resolved()
    key = [sections[name] for name in ("seed", "usage", "base", "model", "faces", "synpairs")]
    key += [bundle, file_sha256(params.data_dir("curate") / "photos.parquet")]
    return Path(".iy", "resume", params.profile, f"synpairs-{sha256(json.dumps(key, sort_keys=True).encode())[:16]}")


def make_all(chosen: Sequence, plan: Callable[[Sequence], list[Plan]], maker: Maker, work: Path) -> list[Path]:
    """One folder per shard under `work`; those already there are kept."""
    step = max(1, len(chosen) // EXAMPLES)
    folders = []
    for number, start in enumerate(range(0, len(chosen), SHARD)):
        folder = work / f"{number:05d}"
        folders.append(folder)
        if folder.exists():
            log.info("shard %d is already there", number)
            continue
        make_shard(folder, number, start, plan(chosen[start : start + SHARD]), maker, step)
    return folders


def make_shard(folder: Path, number: int, start: int, plans: list[Plan], maker: Maker, step: int) -> None:
    drawn = [plan for plan in plans if plan.rewrite.problem is None]
    made = dict(zip(map(id, drawn), maker.make(drawn), strict=True)) if drawn else {}
    rows, files, examples = [], [], []
    for i, plan in enumerate(plans):
        row, data = maker.row(plan, made.get(id(plan)))
        rows.append(row)
        if data is not None:
            files.append((f"{start + i:08d}.png", data))
            if (start + i) % step == 0:
                examples.append({"id": row["id"], "strip": example(maker, plan, made[id(plan)])})
    with atomic_folder(folder) as aside:
        if files:
            places = iter(write_shard(aside / f"{number:05d}.tar", files))
            for row in rows:
                if "kept_pass" in row:
                    row.update(next(places)._asdict())
        for one in examples:
            (aside / f"example-{one['id']}.png").write_bytes(one["strip"])
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
