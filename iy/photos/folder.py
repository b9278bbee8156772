"""Photographs in a folder: sub-folders are persons; files directly in it are unlabelled."""

import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from iy import params
from iy.errors import UserError
from iy.photos import kinds, persons, sidecar
from iy.photos.photo import Photo, read_all, readable, unreadable
from iy.photos.sidecar import Sidecars
from iy.pictures import Unreadable, contents, decode
from iy.storage import sha256


class Found(NamedTuple):
    """A file, or a folder that is not entered (`reason` says why)."""

    path: Path
    reason: str | None


def photos(settings: params.Photos, workers: params.Workers) -> Iterator[Photo]:
    """The folder's photos, ordered by path."""
    root = checked_root(settings.path)
    files = sorted(walk(root), key=lambda one: os.fsencode(one.path))
    found = [one for one in files if one.reason or kinds.is_photo((one.path.name,))]
    if not found:
        raise UserError(
            f"photos.path {settings.path} holds no files: put photographs there, in one sub-folder per "
            "person or all in one folder"
        )
    paths = [inside(root, one) for one in found]
    others = (inside(root, one) for one in files if not kinds.is_photo((one.path.name,)))
    sidecars = Sidecars(paths, others, lambda path: sidecar.file_speaks(root / path))
    folders = [PurePosixPath(path).parts[:-1] for path, one in zip(paths, found, strict=True) if not one.reason]
    by_date = persons.dated(folders)
    persons.tell(folders, by_date, str(settings.path))
    return read_all(partial(read, Collection(root, sidecars, by_date), settings), found, workers.count)


class Collection(NamedTuple):
    """What is known of a folder as a whole."""

    root: Path
    sidecars: Sidecars
    by_date: bool


def inside(root: Path, found: Found) -> str:
    return found.path.relative_to(root).as_posix()


def checked_root(path: str | None) -> Path:
    if path is None:
        raise UserError("photos.source: folder needs photos.path: name the folder that holds the photographs")
    root = Path(path).expanduser()
    if not root.is_dir():
        kind = "is not a folder" if root.exists() else "does not exist"
        raise UserError(f"photos.path {path} {kind}: name the folder that holds the photographs")
    return root


def walk(root: Path) -> Iterator[Found]:
    """Every file, but those that the system hides; linked folders are not entered, so loops end."""
    failed: list[Found] = []
    for folder, folders, files in os.walk(root, onerror=lambda error: failed.append(cannot_list(error))):
        folders[:] = [name for name in folders if not kinds.hidden((name,))]
        for name in folders:
            if Path(folder, name).is_symlink():
                yield Found(Path(folder, name), "a link to a folder: not followed")
        for name in files:
            if not kinds.hidden((name,)):
                yield Found(Path(folder, name), None)
    yield from failed


def cannot_list(error: OSError) -> Found:
    return Found(Path(error.filename), f"the folder cannot be listed: {error.strerror}")


def read(collection: Collection, settings: params.Photos, found: Found) -> Photo:
    """One file as a photo; whatever is wrong with it becomes the reason of a rejected row."""
    path = inside(collection.root, found)
    uri = printable(Path(path))
    label = persons.person(PurePosixPath(path).parts[:-1], collection.by_date)
    columns = {
        "id": sha256(uri.encode()),
        "uri": uri,
        "licence": settings.licence,
        "consent": settings.consent,
        "label": label and printable(Path(label)),
    }
    try:
        if found.reason:
            raise Unreadable(found.reason)
        data = contents(found.path)
        columns["id"] = sha256(data)  # first: it is known by it whatever its sidecar says
        columns |= sidecar.read(beside(collection.root / one) for one in collection.sidecars.of(path))
        return readable(decode(data, settings.maximum_pixels, settings.maximum_side), **columns)
    except Unreadable as reason:
        return unreadable(reason, **columns)


def beside(file: Path) -> tuple[str, bytes]:
    """A sidecar's name and what it holds."""
    name = printable(Path(file.name))
    try:
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):
            raise Unreadable(f"its sidecar {name} is not a regular file")
        if found.st_size > sidecar.MAXIMUM_BYTES:
            raise Unreadable(sidecar.TOO_LARGE.format(name))
        return name, file.read_bytes()
    except OSError as error:
        raise Unreadable(f"its sidecar {name} cannot be read: {error.strerror}") from None


def printable(path: Path) -> str:
    """A file name as valid Unicode: bytes that are not UTF-8 appear as \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
