"""Drawing a table beside the pipeline called in a loop, at the same batch size: pictures per second, in one run.

Ours is all that `iy generate --table` does once its model is loaded: reading the table, cutting faces, encoding every
distinct prompt and face once, drawing, writing pictures, table and sheets. Bare is the pipeline with prompts and crops
in memory, batch after batch, nothing done with the pictures. One worker here, as many threads for both.
"""

import csv
import json
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc
import torch

from iy import params, records
from iy.bench.measure import Case, report, wait
from iy.errors import UserError
from iy.evaluate import prompts as evaluation
from iy.faces import crop
from iy.jobs import draw
from iy.jobs.run import draw_table
from iy.model import ImagineYourselfPipeline

WARM = 2  # batches that do not count


class Row(NamedTuple):
    """One picture to draw: a person of the collection, their crop uint8 (S, S, 3), a prompt and a seed."""

    person: str
    crop: np.ndarray
    prompt: str
    seed: int


def run(settings: params.Params, bundle: Path, pictures: int, prompts: int, people: int, rounds: int) -> dict:
    """Pictures per second of `pictures` jobs of so many prompts and people, the median of `rounds`, in turns."""
    rows = asked(settings, pictures, prompts, people)
    alone = {"workers": settings.workers.model_copy(update={"map": "serial"})}
    settings = settings.model_copy(update=alone)
    before = torch.get_num_threads()
    pipeline = draw.opened(json.dumps(settings.resolved()), bundle)[0].pipeline
    batches = [rows[start : start + settings.jobs.batch] for start in range(0, pictures, settings.jobs.batch)]
    bare(pipeline, settings, batches[:WARM])
    taken: dict[str, list[float]] = {"ours": [], "bare": []}
    for _ in range(rounds):
        taken["ours"].append(ours(settings, bundle, rows))
        taken["bare"].append(bare(pipeline, settings, batches))
    rate = {name: pictures / float(np.median(seconds)) for name, seconds in taken.items()}
    case = Case("drawing a table", "the pipeline bare", rate["ours"], rate["bare"], "pictures/s")
    found = report([case], pipeline.device, pictures=pictures, prompts=prompts, people=people, rounds=rounds)
    torch.set_num_threads(before)
    return found | {"batch": settings.jobs.batch, "steps": settings.draw.steps}


def asked(settings: params.Params, pictures: int, prompts: int, people: int) -> list[Row]:
    """Jobs of the first `people` of the collection, each prompt and person in turn."""
    table = settings.data_dir("curate") / "photos.parquet"
    photos: dict[str, dict] = {}
    for row in records.read(table, records.PHOTO, where=pc.field("verdict") == records.ACCEPTED):
        photos.setdefault(row["person"], row)
    if len(photos) < people:
        raise UserError(f"{table} has {len(photos)} people, --people asks for {people}: ask for fewer")
    names = sorted(photos)[:people]
    crops = {name: crop.reference_crop(settings, settings.photos_dir, photos[name]) for name in names}
    texts = [prompt.text for prompt in evaluation.prompts(prompts, settings.seed)]
    pairs = [(names[i % people], texts[(i // people) % prompts]) for i in range(pictures)]
    return [Row(name, crops[name], text, i) for i, (name, text) in enumerate(pairs)]


def ours(settings: params.Params, bundle: Path, rows: list[Row]) -> float:
    """Seconds of drawing them from a table; nothing of an earlier round is kept."""
    with tempfile.TemporaryDirectory() as aside:
        path = Path(aside, "jobs.csv")
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("person", "prompt", "seed"), *((r.person, r.prompt, r.seed) for r in rows)])
        draw.opened(json.dumps(settings.resolved()), bundle)[1].kept.forget()
        wait()
        start = time.perf_counter()
        draw_table(settings, bundle, path, Path(aside, "out"), 0)
        wait()
        return time.perf_counter() - start


def bare(pipeline: ImagineYourselfPipeline, settings: params.Params, batches: list[list[Row]]) -> float:
    """Seconds of the pipeline called batch after batch."""
    how = settings.draw
    wait()
    start = time.perf_counter()
    for rows in batches:
        pipeline(
            [row.prompt for row in rows],
            reference=[row.crop for row in rows],
            seeds=[row.seed for row in rows],
            num_inference_steps=how.steps,
            guidance_scale=how.guidance,
            identity_guidance_scale=how.identity_guidance,
        )
    wait()
    return time.perf_counter() - start
