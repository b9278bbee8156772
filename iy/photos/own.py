"""`--photos PLACE`: what a user types for the settings that read their own photographs."""

import json
from collections.abc import Collection
from pathlib import Path, PurePath
from typing import Any

from iy import s3
from iy.errors import UserError
from iy.photos import kinds
from iy.storage import sha256

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
    """The source that reads such files: tars, tables, or photographs themselves."""
    paths = [PurePath(name) for name in names]
    if any(path.suffix == ".tar" for path in paths):
        return "webdataset"
    tables = [path for path in paths if path.suffix.lower() in kinds.TABLES]
    pictures = any(path.suffix.lower()[1:] in kinds.PICTURES for path in paths)
    if any(path.name in kinds.METADATA for path in tables) or (tables and not pictures):
        return "table"
    return "s3" if remote else "folder"
