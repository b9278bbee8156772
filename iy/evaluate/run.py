"""Base, pretrained bundle and stages 1 to 4 on held-out people: all draw the same cells, and are measured on them."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from iy import metrics as table
from iy import records
from iy.device import choose_device
from iy.diffusion import Base, load_base
from iy.errors import UserError
from iy.evaluate import draw, exports, measure, page, plots, together
from iy.evaluate.alignment import Clip, probe_scores
from iy.evaluate.benchmark import STAGES, Benchmark, Place, Result, places
from iy.evaluate.look import Observer
from iy.evaluate.prompts import prompts, subjects
from iy.model import ImagineYourselfPipeline
from iy.params import Params
from iy.storage import atomic_folder, write_json
from iy.tracking import UNTRACKED, StageRun

log = logging.getLogger(__name__)


def run(settings: Params, tracked: StageRun = UNTRACKED) -> None:
    """Write reports/<profile>/evaluate: metrics, index.html, cells.parquet, plots/ and images/."""
    base = load_base(settings.base, choose_device(settings.device))
    benchmark = prepare(settings, base)
    tracked.log_dataset("curate", settings.data_dir("curate") / "photos.parquet")
    works = {name: draw.work_folder(settings, name, folder) for name, folder in models(settings).items()}
    results = {
        name: evaluate_model(benchmark, draw.open_model(settings, base, folder), name, folder, works[name])
        for name, folder in models(settings).items()
    }
    last = draw.open_model(settings, base, settings.bundle_dir(STAGES[-1]))
    pairs = together.evaluate(benchmark, last) if settings.evaluate.together else None
    metrics = all_metrics(benchmark, results, pairs)
    folder, grids = write(benchmark, results, metrics, works, pairs)
    tracked.log_metrics(
        {f"{model}/{name}": found["value"] for model, row in metrics.items() for name, found in row.items()}
    )
    for number, grid in enumerate(grids):
        tracked.log_image("people", number, grid)
    for path in (folder / "index.html", folder / "metrics.json", folder / "plots"):
        tracked.log_artifact(path, "report")
    for work in works.values():
        shutil.rmtree(work)
    say(metrics, folder)


def models(settings: Params) -> dict[str, Path | None]:
    """What is compared, and its bundle: the base without a reference, where stage 1 began, every stage."""
    section = settings.finetune
    found: dict[str, Path | None] = {"base": None}
    if section.init == "pretrained" and section.pretrained:
        found["pretrained"] = Path(section.pretrained)
    return found | {f"stage{stage}": settings.bundle_dir(stage) for stage in STAGES}


def prepare(settings: Params, base: Base) -> Benchmark:
    from iy.evaluate.probes import load_probes

    section = settings.evaluate
    for stage in STAGES:
        if not (settings.bundle_dir(stage) / "config.json").exists():
            raise UserError(
                f"{settings.bundle_dir(stage)} is not there: run finetune{stage} first (dvc repro evaluate)"
            )
    photos = records.read(settings.data_dir("curate") / "photos.parquet", records.PHOTO, where=records.usable("test"))
    chosen, asked = subjects(photos, section.people, settings.seed), prompts(section.prompts, settings.seed)
    observer = Observer(settings)
    exports.refuse_blocked(settings, observer.analyser, chosen)
    return Benchmark(
        settings,
        chosen,
        asked,
        places(len(chosen), len(asked), section.seeds),
        [draw.reference_crop(settings, subject.reference) for subject in chosen],
        observer,
        measure.know(chosen, observer, settings),
        Clip(base, section.clip, base.device),
        load_probes(section.probes) if section.probes else None,
    )


def evaluate_model(
    benchmark: Benchmark, pipeline: ImagineYourselfPipeline, name: str, bundle: Path | None, work: Path
) -> Result:
    """Draw all cells of one model (its bundle; None is the base) and measure them, a shard at a time."""
    parts, start = [], 0
    wanted, export = draw.cells(benchmark, bundle is not None), exports.export(benchmark.settings, bundle)
    for images in draw.images(benchmark.settings, pipeline, wanted, work, name, export):
        parts.append(measured(benchmark, images, benchmark.places[start : start + len(images)], start))
        start += len(images)
    values = {key: np.concatenate([part.values[key] for part in parts]) for key in parts[0].values}
    seen = None
    if parts[0].seen is not None:
        seen = {key: [value for part in parts for value in part.seen[key]] for key in parts[0].seen}
    shown = {i: image for part in parts for i, image in part.shown.items()}
    return Result(values, [look for part in parts for look in part.looks], seen, shown)


def measured(benchmark: Benchmark, images: list[np.ndarray], places: Sequence[Place], start: int) -> Result:
    asked = [benchmark.prompts[place.prompt] for place in places]
    people = [benchmark.subjects[place.subject].person for place in places]
    looks = benchmark.observer.look_all(images)
    values = measure.face_values(looks, people, benchmark.gallery)
    values["clip_score"] = benchmark.clip.score(images, [prompt.text for prompt in asked])
    values["prompt_alignment"] = values["clip_score"]
    seen = None
    if benchmark.probes is not None:
        seen = benchmark.probes.read(images)
        scores = probe_scores(seen, asked)
        values |= scores | {"prompt_alignment": np.mean(list(scores.values()), 0)}
    shown = {start + i: image for i, (image, place) in enumerate(zip(images, places, strict=True)) if page.shows(place)}
    return Result(values, looks, seen, shown)


def all_metrics(benchmark: Benchmark, results: dict[str, Result], pairs: together.Together | None) -> dict[str, dict]:
    rounds, seed, people = benchmark.settings.evaluate.bootstrap, benchmark.settings.seed, benchmark.people
    found = {}
    for name, result in results.items():
        spread = measure.diversity(result.looks, people, benchmark.gallery, result.seen)
        found[name] = measure.metrics(result.values, people, spread, rounds, seed)
        for other, suffix in (("base", "_gain"), ("pretrained", "_learnt")):
            if other in results and name not in ("base", other):
                found[name] |= measure.gains(result.values, results[other].values, suffix, people, rounds, seed)
    if pairs:
        found[f"stage{STAGES[-1]}"] |= pairs.metrics(rounds, seed)
    real = measure.real_values(benchmark.subjects, benchmark.gallery)
    if real:
        found["real"] = {name: measure.estimate([one[name] for one in real], rounds, seed) for name in real[0]}
    return table.checked(found)


def write(
    benchmark: Benchmark,
    results: dict[str, Result],
    metrics: dict[str, dict],
    works: dict[str, Path],
    pairs: together.Together | None,
) -> tuple[Path, list[np.ndarray]]:
    """The report's folder, and the picture grids that it shows."""
    folder = benchmark.settings.report_dir("evaluate")
    with atomic_folder(folder) as aside:
        write_json(aside / "metrics.json", metrics)
        write_json(aside / "headline.json", table.headline(metrics))
        pictures = plots.write(aside / "plots", metrics)
        pq.write_table(cells_table(benchmark, results), aside / "cells.parquet")
        page.write(aside, benchmark, results, metrics, pictures, pairs)
        grids = page.write_grids(aside / "images", benchmark, results, exports.export_sheets(benchmark.settings))
        for name, work in works.items():
            shutil.copytree(work, aside / "images" / name)
    return folder, grids


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
        said = [f"{key} {row[key]['value']:.3f}" for key in table.HEADLINE if key in row]
        log.info("%-10s %s", name, "  ".join(said))
    log.info("report: %s", folder / "index.html")
