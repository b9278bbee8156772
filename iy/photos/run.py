"""Photos of the configured source into shards and a table."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from iy import erased, records, rights
from iy.errors import UserError
from iy.params import Params
from iy.photos import bucket, folder, studio, table, tars
from iy.photos.photo import Photo
from iy.records import REJECTED
from iy.storage import atomic_folder, write_shard
from iy.tracking import UNTRACKED, StageRun, Tell

SHARD = 1000  # images in one tar
SOURCES = {
    "studio": studio.photos,
    "folder": folder.photos,
    "s3": bucket.photos,
    "webdataset": tars.photos,
    "table": table.photos,
}
log = logging.getLogger(__name__)


def run(settings: Params, tracked: StageRun = UNTRACKED) -> None:
    """Write data/<profile>/photos: shards, photos.parquet and settings.json, as a whole or not at all."""
    root = (settings.photos.path or "").rstrip("/")
    taken = not_erased(SOURCES[settings.photos.source](settings.photos, settings.workers), root)
    with atomic_folder(settings.photos_dir) as aside:
        seen, withdrawn = Counter(), {}
        rows = noted(store(taken, aside), withdrawn)
        records.stream(aside / "photos.parquet", counted(rows, seen, tracked.log_metrics), records.PHOTO)
        if withdrawn:
            seen.update(withdraw(aside / "photos.parquet", withdrawn))
        refuse_none(aside / "photos.parquet", seen, settings)
        settings.write(aside)
    log.info(
        "photos: %d readable, %d not (kept as rows, with the reason), in %s",
        seen[None],
        seen[REJECTED],
        settings.photos_dir,
    )


def noted(several: Iterable[list[dict]], withdrawn: dict[str, dict]) -> Iterator[list[dict]]:
    """The rows; those whose consent was withdrawn are noted by id."""
    for rows in several:
        refused = (row for row in rows if row["verdict"] == REJECTED)
        withdrawn.update({row["id"]: row for row in refused if rights.withdrawn(row["consent"])})
        yield rows


def withdraw(table: Path, withdrawn: dict[str, dict]) -> Counter:
    """Refuse the same pictures in other places too: who took back a consent does not know of copies. What that changes
    in the count of verdicts."""
    changed: Counter = Counter()

    def judged(row: dict) -> dict:
        said = withdrawn.get(row["id"])
        if said is None or row["verdict"] == REJECTED:
            return row
        changed.update({row["verdict"]: -1, REJECTED: 1})
        reason = f"it is the same picture as {said['uri']}, whose consent was taken back: {said['consent']}"
        nowhere = dict.fromkeys(("shard", "offset", "length"))  # no later stage looks at it
        return row | nowhere | {"verdict": REJECTED, "reason": reason, "consent": said["consent"]}

    again = table.with_name(f".{table.name}")
    batches = records.batches(table, records.PHOTO, size=SHARD)
    records.stream(again, ([judged(row) for row in rows] for rows in batches), records.PHOTO)
    again.replace(table)
    return changed


def counted(several: Iterable[list[dict]], seen: Counter, tell: Tell) -> Iterator[list[dict]]:
    for rows in several:
        seen.update(row["verdict"] for row in rows)
        tell({"photos_readable": seen[None], "photos_unreadable": seen[REJECTED]}, seen.total())
        yield rows


def not_erased(photos: Iterable[Photo], root: str) -> Iterator[Photo]:
    """The photos without those that were erased: they leave no row. `root`: where they lie; ids are of paths below."""
    gone, left_out = erased.read(), 0
    for photo in photos:
        if erased.marks(photo.row["id"], photo.row["uri"].removeprefix(f"{root}/")).isdisjoint(gone):
            yield photo
        else:
            left_out += 1
    if left_out:
        log.info("photos: %d left out: they were erased, and stand in %s", left_out, erased.LIST)


def store(photos: Iterable[Photo], target: Path) -> Iterator[list[dict]]:
    """Write the photos' PNG bytes to shards of 1,000 and yield each one's rows, completed with their place."""
    stream = iter(photos)
    for number in range(10**6):
        batch = list(islice(stream, SHARD))
        if not batch:
            return
        readable = [photo for photo in batch if photo.png is not None]
        names = [f"{number * SHARD + i:08d}.png" for i, photo in enumerate(batch) if photo.png is not None]
        pairs = ((name, photo.png) for name, photo in zip(names, readable, strict=True) if photo.png is not None)
        members = iter(write_shard(target / f"{number:05d}.tar", pairs)) if readable else iter(())
        yield [photo.row if photo.png is None else photo.row | next(members)._asdict() for photo in batch]


def refuse_none(table: Path, seen: Counter, settings: Params) -> None:
    if not seen[None]:
        rows = next(records.batches(table, records.PHOTO, size=3), [])
        said = "; ".join(f"{row['uri']}: {row['reason']}" for row in rows)
        raise UserError(
            f"photos.path {settings.photos.path}: none of the {seen.total()} files is a photo ({said}): "
            "put JPEG, PNG, WebP, TIFF, HEIC or PGM photographs there"
        )
