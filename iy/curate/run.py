"""Photos into a curated collection: measured one by one, then judged, grouped and split as a whole, and captioned."""

import logging
import shutil
from pathlib import Path

from tqdm import tqdm

from iy import records, resume
from iy.curate import calibrate, captions, classify, collection, duplicates, group, page, split
from iy.curate.collection import Collection
from iy.curate.measure import PART, measure
from iy.errors import UserError
from iy.faces import load_analyser
from iy.params import Params
from iy.records import REJECTED
from iy.storage import atomic_folder, write_json
from iy.tracking import UNTRACKED, StageRun, Tell

OF_ALL = {
    "duplicate_bits",
    "duplicate_similarity",
    "grouping",
    "group_threshold",
    "minimum_per_person",
    "wrong_names",
    "validation_people",
    "test_people",
    "classifiers",
    "caption_model",
    "caption_batch",
}  # measuring reads none
MAKERS = ("iy.curate.measure", "iy.curate.classify", "iy.curate.captions")  # of what an unfinished stage keeps
log = logging.getLogger(__name__)


def run(settings: Params, tracked: StageRun = UNTRACKED) -> None:
    """Write data/<profile>/curate (photos.parquet, calibration.json, settings.json) and reports/<profile>/curate."""
    work, tell = work_folder(settings), tracked.log_metrics
    tracked.log_dataset("photos", settings.photos_dir / "photos.parquet")
    with atomic_folder(settings.data_dir("curate")) as aside:
        photos = write_table(settings, settings.photos_dir, work, table := aside / "photos.parquet", tell)
        calibration, genuine, impostor = calibrate.calibrate(
            records.picked(table, records.PHOTO, calibrate.chosen(photos))
        )
        write_json(aside / "calibration.json", calibration)
        settings.write(aside)
    page.write(settings, calibration, genuine, impostor)
    for old in work.parent.glob("curate-*"):  # of other settings too: they hold faces
        shutil.rmtree(old)
    kept = photos.kept()
    people = {photos.person[i] for i in kept}
    tell({"photos_kept": len(kept), "photos_rejected": len(photos) - len(kept), "people": len(people)}, len(photos))
    log.info(
        "curate: %d of %d photos kept, %d persons; %s",
        len(kept),
        len(photos),
        len(people),
        settings.report_dir("curate") / "index.html",
    )


def write_table(
    settings: Params, folder: Path, work: Path, table: Path, tell: Tell = UNTRACKED.log_metrics
) -> Collection:
    """The photos in `folder`, curated, as `table`; what is done lies in `work` until all is."""
    captions.require(settings)
    parts, photos = curate(settings, folder, work, tell)
    finished = tqdm(
        collection.finished(parts, photos),
        "captions",
        len(parts),
        mininterval=1,
        delay=1,
        disable=settings.curate.captioner != "transformers",
    )
    said = captions.place(work, settings.curate)
    several = (
        captions.caption(rows, folder, settings, said / f"{part.stem}.json")
        for part, rows in zip(parts, finished, strict=True)
    )
    records.stream(table, several, records.PHOTO)
    return photos


def work_folder(settings: Params) -> Path:
    """Where what is measured, classified and captioned is kept until all is."""
    table, pack = settings.photos_dir / "photos.parquet", settings.faces.pack
    measuring = [f"curate.{name}" for name in type(settings.curate).model_fields if name not in OF_ALL]
    inputs = [table, *([Path(pack)] if pack else []), list(PART)]
    return resume.work_folder(settings, "curate", ["usage", "faces", *measuring], inputs, MAKERS)


def curate(settings: Params, folder: Path, work: Path, tell: Tell) -> tuple[list[Path], Collection]:
    """The measured parts of the photos in `folder`; what is decided of all: who is accepted, why not, person, split."""
    section, classifiers = (
        settings.curate,
        classify.opened(settings),
    )  # what cannot be opened is told before the long work
    parts = classify.classify(settings, classifiers, folder, measure(settings, folder, work, tell), work)
    photos = collection.read(parts)
    original = duplicates.reject_copies(photos, section)
    need_some(photos, parts)
    group.group(photos, section, load_analyser(settings.faces, settings.usage, settings.device).recogniser.threshold)
    for copy, stays in original.items():
        photos.person[copy] = photos.person[stays]
    split.split(photos, section, settings.seed)
    return parts, photos


def need_some(photos: Collection, parts: list[Path]) -> None:
    if photos.accepted.any():
        return
    rows = (row for part in parts for row in records.read(part, records.PHOTO))
    why = next((row for row in rows if row["verdict"] == REJECTED), None)
    said = f", for example {why['uri']}: {why['reason']}" if why else ""
    raise UserError(
        f"curate: none of the {len(photos)} photos can be used{said}: add portraits of one person "
        "each, or loosen the limits under `curate`"
    )
