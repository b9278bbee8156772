"""Synthetic pairs of the training people: bounds from their photos, shards of pairs, what is accepted, the report."""

import json
import logging
import shutil
from collections import Counter
from pathlib import Path

import numpy as np

from iy import records
from iy.errors import UserError
from iy.faces import Analyser, load_analyser, recogniser_name
from iy.faces.face import reduced_image
from iy.params import Params
from iy.seeds import derived_seed
from iy.storage import atomic_folder, read_image, write_json
from iy.synpairs import accept, bounds, models, page, shards
from iy.synpairs.make import embed
from iy.synpairs.plan import chosen_photos, training_photos, whole
from iy.tracking import UNTRACKED, StageRun

CALIBRATION_PHOTOS = 2000  # their pairs are two million: enough for a false-match rate of 1e-5
log = logging.getLogger(__name__)


def run(settings: Params, tracked: StageRun = UNTRACKED) -> None:
    """Write data/<profile>/synpairs (pairs.parquet, shards, bounds.json, settings.json) and its report."""
    models.require(settings)
    section, table = settings.synpairs, settings.data_dir("curate") / "photos.parquet"
    chosen = chosen_photos(table, section, settings.seed)
    tracked.log_dataset("curate", table)
    analyser = load_analyser(settings.faces, settings.usage, settings.device)
    genuine, impostor = known_similarities(table, analyser, settings)
    limits = bounds.bounds(genuine, impostor, section.false_match_rate, section.upper_quantile)
    log.info(
        "accepted between %.3f and %.3f (%d genuine, %d impostor similarities)",
        limits.lower,
        limits.upper,
        len(genuine),
        len(impostor),
    )
    folders = make(settings, chosen, limits)
    summary = bounds.summary(genuine, impostor, limits, section.false_match_rate, section.upper_quantile)
    with atomic_folder(settings.data_dir("synpairs")) as aside:
        rows = shards.gather(folders, aside)
        passed = sum(row["verdict"] == records.ACCEPTED for row in rows)
        kept_below = accept.keep_best(rows, section.fallback_best)
        summary |= {
            "recogniser": recogniser_name(analyser),
            "pairs": {"made": len(rows), "within bounds": passed, "kept below the bound": kept_below},
        }
        records.write(aside / "pairs.parquet", rows, records.PAIR)
        write_json(aside / "bounds.json", summary)
        settings.write(aside)
    html = page.write(settings, rows, summary, genuine, impostor, shards.read_examples(folders))
    tracked.log_metrics(
        {"pairs_made": len(rows), "pairs_within_bounds": passed, "pairs_kept_below_the_bound": kept_below}
    )
    tracked.log_artifact(html.parent, "report")
    shutil.rmtree(folders[0].parent)
    say(rows, passed, kept_below)


def make(settings: Params, chosen: list, limits: bounds.Bounds) -> list[Path]:
    """The shard folders of all pairs."""
    import torch

    bundle = settings.bundle_dir(1)
    if models.uses_bundle(settings.synpairs) and not (bundle / "config.json").exists():
        raise UserError(f"{bundle} is not there: run finetune1 first (dvc repro synpairs)")
    model = models.names_of(settings)
    how = shards.How(json.dumps(settings.resolved()), model, limits, torch.get_num_threads())
    return shards.make_all(chosen, how, shards.work_folder(settings, model), settings.workers)


def known_similarities(table: Path, analyser: Analyser, settings: Params) -> tuple[np.ndarray, np.ndarray]:
    """Genuine and impostor similarities of training photos: as they are on one side, at the model's size on the other.

    Synthetic images have the model's size, and recognisers are less sure of small faces: the bounds must know (choice).
    """
    photos = sorted(training_photos(table), key=lambda row: derived_seed(settings.seed, "calibration", row["id"]))
    by_id = whole(table, photos[:CALIBRATION_PHOTOS])
    rows = [by_id[photo["id"]] for photo in photos[:CALIBRATION_PHOTOS]]
    if stale := {row["recogniser"] for row in rows} - {recogniser_name(analyser)}:
        raise UserError(
            f"the curated photos were embedded by {stale.pop()}, not {recogniser_name(analyser)}: run curate again"
        )
    own, small, people = [], [], []
    for row in rows:
        seen = embed(analyser, reduced_image(read_image(settings.photos_dir, row), settings.base.image_size))
        if seen is not None:
            own.append(row["embedding"])
            small.append(seen)
            people.append(row["person"])
    if len(set(people)) < 2:
        raise UserError(
            "synpairs: bounds need photos of at least two training people, whose faces are found at the model's size"
        )
    return bounds.similarities(np.array(own), np.array(small), people)


def say(rows: list[dict], passed: int, kept_below: int) -> None:
    reasons = Counter(accept.kind_of(row) for row in rows if row["verdict"] == records.REJECTED)
    why = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    log.info(
        "%d pairs: %d within the bounds, %d kept below the bound, rejected: %s",
        len(rows),
        passed,
        kept_below,
        why or "none",
    )
    if not passed + kept_below:
        log.warning(
            "no pair was accepted, so stage 2 has nothing to learn from: train stage 1 longer, raise "
            "synpairs.false_match_rate, or set synpairs.fallback_best"
        )
