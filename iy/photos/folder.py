"""Photographs in a folder: sub-folders are persons; files directly in it are unlabelled."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from iy import params
from iy.errors import UserError
from iy.photos import sidecar
from iy.photos.photo import Photo, read_all, readable, unreadable
from iy.pictures import Unreadable, contents, decode
from iy.storage import sha256


class Found(NamedTuple):
    """A file, or a folder that is not entered (`reason` says why)."""

    path: Path
    reason: str | None


def photos(settings: params.Photos, workers: params.Workers) -> Iterator[Photo]:
    """The folder's photos, ordered by path."""
    root = checked_root(settings.path)
    found = sorted(walk(root), key=lambda one: os.fsencode(one.path))
    if not found:
        raise UserError(
            f"photos.path {settings.path} holds no files: put photographs there, in one sub-folder per "
            "person or all in one folder"
        )
    return read_all(partial(read, root, settings), found, workers.count)


def checked_root(path: str | None) -> Path:
    if path is None:
        raise UserError("photos.source: folder needs photos.path: name the folder that holds the photographs")
    root = Path(path).expanduser()
    if not root.is_dir():
        kind = "is not a folder" if root.exists() else "does not exist"
        raise UserError(f"photos.path {path} {kind}: name the folder that holds the photographs")
    return root


def walk(root: Path) -> Iterator[Found]:
    """Every file that may be a photo. Hidden files are the system's, .txt and .json files are sidecars; linked folders
    are not entered, so loops end."""
    failed: list[Found] = []
    for folder, folders, files in os.walk(root, onerror=lambda error: failed.append(cannot_list(error))):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            if Path(folder, name).is_symlink():
                yield Found(Path(folder, name), "a link to a folder: not followed")
        for name in files:
            if is_photo((name,)):
                yield Found(Path(folder, name), None)
    yield from failed


def is_photo(parts: tuple[str, ...]) -> bool:
    """May the file of that path be a photo? Not what is hidden, a sidecar, or made by a file manager."""
    hidden = any(part.startswith(".") for part in parts)
    return not hidden and not parts[-1].lower().endswith((*sidecar.SUFFIXES, "thumbs.db", "desktop.ini"))


def cannot_list(error: OSError) -> Found:
    return Found(Path(error.filename), f"the folder cannot be listed: {error.strerror}")


def read(root: Path, settings: params.Photos, found: Found) -> Photo:
    """One file as a photo; whatever is wrong with it becomes the reason of a rejected row."""
    uri = printable(found.path.relative_to(root))
    parts = found.path.relative_to(root).parts
    columns = {
        "id": sha256(uri.encode()),
        "uri": uri,
        "licence": settings.licence,
        "consent": settings.consent,
        "label": printable(Path(parts[0])) if len(parts) > 1 else None,
    }
    try:
        if found.reason:
            raise Unreadable(found.reason)
        data = contents(found.path)
        columns["id"] = sha256(data)  # first: it is known by it whatever its sidecar says
        columns |= sidecar.read(found.path, beside)
        return readable(decode(data, settings.maximum_pixels, settings.maximum_side), **columns)
    except Unreadable as reason:
        return unreadable(str(reason), **columns)


def beside(file: Path) -> bytes | None:
    """A sidecar, None where there is none."""
    try:
        if not file.is_file():
            return None
        if file.stat().st_size > sidecar.MAXIMUM_BYTES:
            raise Unreadable(sidecar.TOO_LARGE.format(file.name))
        return file.read_bytes()
    except OSError as error:
        raise Unreadable(f"its sidecar {file.name} cannot be read: {error.strerror}") from None


def printable(path: Path) -> str:
    """A file name as valid Unicode: bytes that are not UTF-8 appear as \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
