"""`--photos PLACE`: what a user types for the settings that read their own photographs."""

import json
import logging
import re
from collections.abc import Collection
from pathlib import Path, PurePath
from typing import Any

from iy import s3
from iy.errors import UserError
from iy.photos import kinds
from iy.spreadsheet import TABLES
from iy.storage import sha256

SHARD = re.compile(r"\d{3}$")  # 00000.tar, train-000012.tar
log = logging.getLogger(__name__)
# The profile speaks of its own photographs. Nobody has said so of others: `usage: commercial` refuses what is unknown.
UNSTATED = {"photos.licence": "unknown", "photos.consent": "not stated"}


def stated(changes: dict[str, Any]) -> dict[str, Any]:
    """`changes` of settings, and of photographs that they name what nobody said of them."""
    others = "photos.path" in changes or changes.get("photos.source", "studio") != "studio"
    return {**UNSTATED, **changes} if others else changes


def own_photos(place: str) -> dict[str, Any]:
    """Settings that read a place, here or in S3; the snapshot changes with its files, so that new ones are noticed."""
    if remote := place.startswith(s3.SCHEME):
        listing = in_store(place)
    else:
        place = str(Path(place).expanduser().resolve())
        listing = here(Path(place))
    if not listing:
        raise UserError(
            f"--photos {place}: the folder is empty: put photographs in it, one sub-folder per person if you can"
        )
    source = kind([name for name, *_ in listing], remote)
    if remote and source == "table":
        raise UserError(f"--photos {place}: bring the table to this machine; its rows may name objects s3://bucket/key")
    snapshot = sha256(json.dumps(listing).encode())[:16]
    return stated({"photos.source": source, "photos.path": place, "photos.snapshot": snapshot})


def in_store(url: str) -> list[list]:
    """Of every object below a folder of a bucket, or of the one tar that `url` names: name, size, etag."""
    bucket, below = s3.place(url, "--photos")
    folder = below.rpartition("/")[0] if below.endswith(".tar") else below
    with s3.told(url, "--photos"):
        items = [list(item) for item in s3.listed(s3.client(), bucket, folder)]
    return [item for item in items if item[0] == below] if folder != below else items


def here(place: Path) -> list[list]:
    """Of every file in a folder, or of one file: name, size, time of change."""
    if not place.exists():
        raise UserError(f"--photos {place}: there is no such folder")
    root, paths = (place, sorted(place.rglob("*"))) if place.is_dir() else (place.parent, [place])
    try:
        return [
            [str(path.relative_to(root)), stat.st_size, stat.st_mtime_ns] for path in paths if (stat := path.lstat())
        ]
    except OSError as error:
        raise UserError(f"--photos {place}: {error.filename}: {error.strerror}") from None


def kind(names: Collection[str], remote: bool) -> str:
    """The source that reads such files: tars, tables, or photographs themselves; what it leaves out is told."""
    paths = [path for name in names if not kinds.hidden((path := PurePath(name)).parts)]
    tars = [path for path in paths if kinds.is_tar(path.name)]
    tables = [path for path in paths if path.suffix.casefold() in TABLES]
    pictures = [path for path in paths if kinds.is_picture(path.name)]
    if is_tars(tars, pictures):
        tell_left_out("tars", {"pictures": pictures})
        return "webdataset"
    if is_table(tables, pictures):
        tell_left_out("tables", {"tars": tars})
        return "table"
    tell_left_out("photographs themselves", {"tars": tars, "tables": tables})
    return "s3" if remote else "folder"


def is_tars(tars: list[PurePath], pictures: list[PurePath]) -> bool:
    """Tars are what is meant where no pictures lie, where most files are tars, or where they are numbered as shards
    are: one backup.tar beside photographs is not."""
    shards = sum(bool(SHARD.search(path.stem)) for path in tars)
    return bool(tars) and (not pictures or len(tars) > len(pictures) or 2 * shards > len(tars))


def is_table(tables: list[PurePath], pictures: list[PurePath]) -> bool:
    """Tables are what is meant where no pictures lie, or where most of these lie in folders with metadata."""
    folders = {path.parent for path in tables if kinds.is_metadata(path.name)}
    listed = sum(not folders.isdisjoint(path.parents) for path in pictures)
    return bool(tables) and (not pictures or 2 * listed > len(pictures))


def tell_left_out(read: str, others: dict[str, list[PurePath]]) -> None:
    for what, paths in others.items():
        if paths:
            shown = ", ".join(map(str, sorted(paths)[:3])) + (", …" if len(paths) > 3 else "")
            log.warning("--photos: read as %s; %d %s are left out: %s", read, len(paths), what, shown)
