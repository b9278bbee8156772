"""Base and stages 1 to 4 on held-out people: every model draws the same cells, and is measured on them."""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from iy import records
from iy.device import choose_device
from iy.diffusion import Base, load_base
from iy.errors import UserError
from iy.evaluate import draw, measure, page, plots, together
from iy.evaluate.alignment import Clip, probe_scores
from iy.evaluate.look import Look, Observer
from iy.evaluate.prompts import Prompt, Subject, prompts, subjects
from iy.params import Params
from iy.storage import atomic_folder, write_json
from iy.tracking import UNTRACKED, StageRun

STAGES = (1, 2, 3, 4)
log = logging.getLogger(__name__)


@dataclass
class Benchmark:
    """Everything that is the same for all models."""

    params: Params
    subjects: list[Subject]
    prompts: list[Prompt]
    places: list[draw.Place]
    observer: Observer
    gallery: measure.Gallery
    clip: Clip
    probes: Any

    @property
    def people(self) -> list[str]:
        """The person of every cell."""
        return [self.subjects[place.subject].person for place in self.places]


@dataclass
class Result:
    """One model's cells: measures (N,), looks, and the images that the report shows (by index of the cell)."""

    values: measure.Values
    looks: list[Look]
    seen: dict[str, list[str]] | None
    shown: dict[int, np.ndarray] = field(default_factory=dict)


def run(params: Params, tracked: StageRun = UNTRACKED) -> None:
    """Write reports/<profile>/evaluate: metrics.json, index.html, cells.parquet, plots/ and images/."""
    base = load_base(params.base, choose_device(params.device))
    benchmark = prepare(params, base)
    tracked.log_dataset("curate", params.data_dir("curate") / "photos.parquet")
    results, works = {}, []
    for name, stage in [("base", None), *((f"stage{stage}", stage) for stage in STAGES)]:
        works.append(draw.work_folder(params, name, params.bundle_dir(stage) if stage else None))
        results[name] = evaluate_model(benchmark, base, name, stage, works[-1])
    pairs = (
        together.evaluate(benchmark, draw.open_model(params, base, STAGES[-1])) if params.evaluate.together else None
    )
    metrics = all_metrics(benchmark, results)
    if pairs:
        metrics["stage4"] |= pairs.metrics(params.evaluate.bootstrap, params.seed)
    folder = write(benchmark, results, metrics, works, pairs)
    tracked.log_metrics(
        {f"{model}/{name}": found["value"] for model, row in metrics.items() for name, found in row.items()}
    )
    for number, path in enumerate(sorted(folder.glob("images/*.png"))):
        tracked.log_image("people", number, page.read_png(path))
    for path in (folder / "index.html", folder / "metrics.json", folder / "plots"):
        tracked.log_artifact(path, "report")
    for work in works:
        shutil.rmtree(work)
    say(metrics, folder)


def prepare(params: Params, base: Base) -> Benchmark:
    from iy.evaluate.probes import load_probes

    settings = params.evaluate
    for stage in STAGES:
        if not (params.bundle_dir(stage) / "config.json").exists():
            raise UserError(f"{params.bundle_dir(stage)} is not there: run finetune{stage} first (dvc repro evaluate)")
    photos = records.read(params.data_dir("curate") / "photos.parquet", records.PHOTO, where=records.usable("test"))
    chosen, asked = subjects(photos, settings.people, params.seed), prompts(settings.prompts, params.seed)
    observer = Observer(params)
    return Benchmark(
        params,
        chosen,
        asked,
        draw.places(len(chosen), len(asked), settings.seeds),
        observer,
        measure.know(chosen, observer, params),
        Clip(base, settings.clip, base.device),
        load_probes(settings.probes) if settings.probes else None,
    )


def evaluate_model(benchmark: Benchmark, base: Base, name: str, stage: int | None, work: Path) -> Result:
    """Draw all cells of one model and measure them, a shard at a time."""
    params = benchmark.params
    wanted = draw.cells(
        params, benchmark.subjects, benchmark.prompts, benchmark.places, with_reference=stage is not None
    )
    parts, start = [], 0
    for images in draw.images(params, draw.open_model(params, base, stage), wanted, work, name):
        parts.append(measured(benchmark, images, benchmark.places[start : start + len(images)], start))
        start += len(images)
    values = {key: np.concatenate([part.values[key] for part in parts]) for key in parts[0].values}
    seen = (
        None
        if benchmark.probes is None
        else {key: [value for part in parts for value in part.seen[key]] for key in parts[0].seen}
    )
    return Result(
        values,
        [look for part in parts for look in part.looks],
        seen,
        {i: image for part in parts for i, image in part.shown.items()},
    )


def measured(benchmark: Benchmark, images: list[np.ndarray], places: Sequence[draw.Place], start: int) -> Result:
    asked = [benchmark.prompts[place.prompt] for place in places]
    people = [benchmark.subjects[place.subject].person for place in places]
    looks = benchmark.observer.look_all(images)
    values = measure.face_values(looks, people, benchmark.gallery)
    values["clip_score"] = benchmark.clip.score(images, [prompt.text for prompt in asked])
    values["prompt_alignment"] = values["clip_score"]
    seen = None
    if benchmark.probes is not None:
        scores, seen = probe_scores(benchmark.probes, images, asked), benchmark.probes.read(images)
        values |= scores | {"prompt_alignment": np.mean(list(scores.values()), 0)}
    shown = {start + i: image for i, (image, place) in enumerate(zip(images, places, strict=True)) if page.shows(place)}
    return Result(values, looks, seen, shown)


def all_metrics(benchmark: Benchmark, results: dict[str, Result]) -> dict[str, dict]:
    rounds, seed, people = benchmark.params.evaluate.bootstrap, benchmark.params.seed, benchmark.people
    found = {}
    for name, result in results.items():
        spread = measure.diversity(result.looks, people, benchmark.gallery, result.seen)
        found[name] = measure.metrics(result.values, people, spread, rounds, seed)
        if name != "base":
            found[name] |= measure.gains(result.values, results["base"].values, people, rounds, seed)
    real = measure.real_values(benchmark.subjects, benchmark.gallery)
    if real:
        found["real"] = {name: measure.estimate([one[name] for one in real], rounds, seed) for name in real[0]}
    return found


def write(
    benchmark: Benchmark,
    results: dict[str, Result],
    metrics: dict[str, dict],
    works: Sequence[Path],
    pairs: together.Together | None,
) -> Path:
    folder = benchmark.params.report_dir("evaluate")
    with atomic_folder(folder) as aside:
        write_json(aside / "metrics.json", metrics)
        pictures = plots.write(aside / "plots", metrics)
        pq.write_table(cells_table(benchmark, results), aside / "cells.parquet")
        page.write(aside, benchmark, results, metrics, pictures, pairs)
        for name, work in zip(results, works, strict=True):
            shutil.copytree(work, aside / "images" / name)
    return folder


def cells_table(benchmark: Benchmark, results: dict[str, Result]) -> pa.Table:
    """A row per image: where it lies in images/<model>, who and what was asked, and every measure."""
    rows = []
    for name, result in results.items():
        for i, place in enumerate(benchmark.places):
            subject, prompt = benchmark.subjects[place.subject], benchmark.prompts[place.prompt]
            rows.append(
                {
                    "model": name,
                    "cell": i,
                    "person": subject.person,
                    "reference": subject.reference["id"],
                    "prompt": prompt.text,
                    "seed": place.number,
                    **{key: float(array[i]) for key, array in result.values.items()},
                }
            )
    return pa.Table.from_pylist(rows)


def say(metrics: dict[str, dict], folder: Path) -> None:
    for name, row in metrics.items():
        said = [
            f"{key} {row[key]['value']:.3f}"
            for key in ("identity_judge", "top1_judge", "prompt_alignment", "copy_paste")
            if key in row
        ]
        log.info("%-7s %s", name, "  ".join(said))
    log.info("report: %s", folder / "index.html")
