"""Where tars lie: in a folder, or in S3."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from iy import s3
from iy.errors import UserError
from iy.photos import kept, kinds, persons

log = logging.getLogger(__name__)


def shards(place: str) -> Iterator[tuple[str, Path]]:
    """Every tar's name below `place`, and where on this disk it is."""
    return remote(place) if place.startswith(s3.SCHEME) else local(Path(place).expanduser())


def local(place: Path) -> Iterator[tuple[str, Path]]:
    if place.is_file():
        yield place.name, place
        return
    if not place.is_dir():
        raise UserError(f"photos.path {place} does not exist: name a folder of tars, or a tar")
    files = {path.relative_to(place).as_posix(): path for path in sorted(place.rglob("*")) if path.is_file()}
    tars = chosen(files)
    if not tars:
        raise UserError(
            f"photos.path {place} holds no .tar files: photographs that lie there themselves are source: folder"
        )
    yield from ((name, files[name]) for name in tars)


def remote(url: str) -> Iterator[tuple[str, Path]]:
    """One tar on this disk at a time."""
    bucket, prefix = s3.place(url, "photos.path")
    one = kinds.is_tar(prefix)
    folder = prefix.rpartition("/")[0] if one else prefix
    with s3.told(url, "photos.path"):
        store = s3.client()
        listed = {item.key: item for item in s3.listed(store, bucket, folder)}
        start = len(folder) + 1 if folder else 0
        inside = {key[start:]: item for key, item in listed.items() if key == prefix or not one}
        tars = chosen(inside)
        if not tars:
            raise UserError(f"photos.path {url} holds no .tar files")
        for name in tars:
            with kept.fetched(store, bucket, inside[name]) as path:
                yield name, path


def chosen(names: Iterable[str]) -> list[str]:
    """The tars among the files of a place; pictures that lie beside them are told."""
    shown = [name for name in names if not kinds.hidden(PurePosixPath(name).parts)]
    tars = [name for name in shown if kinds.is_tar(name)]
    if tars and (left := {name for name in shown if kinds.is_picture(name)}):
        log.warning("photos: %d pictures lie beside the tars, and are left out: %s", len(left), persons.some(left))
    return tars
