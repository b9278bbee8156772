"""Photographs in WebDataset tars, as img2dataset writes them: `photos: {source: webdataset, path: FOLDER or FILE.tar}`,
here or in S3. Members that share a name up to its first dot are one sample: a picture, its caption, its JSON.

Nothing is unpacked to disk, and no name in a tar is ever used as a path.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import IO

from iy import params, s3
from iy.errors import UserError
from iy.photos import kept, sidecar
from iy.photos.photo import Photo, read_all, readable, unreadable
from iy.pictures import Unreadable, decode, taken
from iy.storage import sha256

PICTURES = frozenset("jpg jpeg jpe jfif png webp tif tiff bmp gif heic heif hif avif ppm pgm jp2 mpo".split())
BATCH = 16  # pictures that wait in memory
BROKEN = (tarfile.TarError, EOFError, OSError, ValueError)  # what tarfile says of bytes that are no tar


@dataclass
class Sample:
    """One sample's place, `tar/key`, the bytes of its picture, caption and JSON by extension, or why it has none."""

    uri: str
    files: dict[str, bytes] = field(default_factory=dict)
    reason: str | None = None


def photos(settings: params.Photos, workers: params.Workers) -> Iterator[Photo]:
    """The tars' photos, tars by name, samples in their order."""
    if settings.path is None:
        raise UserError(
            "photos.source: webdataset needs photos.path: name a folder of tars, a tar, or s3://bucket/folder"
        )
    tars = remote(settings.path) if settings.path.startswith(s3.SCHEME) else local(Path(settings.path).expanduser())
    found = (sample for name, path in tars for sample in samples(path, name))
    return read_all(partial(read, settings), found, workers.count, batch=BATCH)


def local(place: Path) -> Iterator[tuple[str, Path]]:
    """Every tar's name below `place`, and where it is."""
    if place.is_file():
        yield place.name, place
        return
    if not place.is_dir():
        raise UserError(f"photos.path {place} does not exist: name a folder of tars, or a tar")
    tars = sorted(path for path in place.rglob("*.tar") if path.is_file() and not path.name.startswith("."))
    if not tars:
        raise UserError(
            f"photos.path {place} holds no .tar files: photographs that lie there themselves are source: folder"
        )
    yield from ((path.relative_to(place).as_posix(), path) for path in tars)


def remote(url: str) -> Iterator[tuple[str, Path]]:
    """The same of S3, one tar on this disk at a time."""
    bucket, prefix = s3.place(url, "photos.path")
    with s3.told(url, "photos.path"):
        store = s3.client()
        folder, _, name = prefix.rpartition("/")
        one = prefix.endswith(".tar")
        items = [
            item
            for item in s3.listed(store, bucket, folder if one else prefix)
            if (item.key == prefix if one else item.key.endswith(".tar"))
        ]
        if not items:
            raise UserError(f"photos.path {url} holds no .tar files")
        start = len(folder if one else prefix)
        for item in items:
            with kept.fetched(store, bucket, item) as path:
                yield item.key[start:].lstrip("/"), path


def samples(path: Path, name: str) -> Iterator[Sample]:
    """The samples of one tar; one that breaks off gives what it holds, and a row that says so."""
    count = 0
    try:
        with tarfile.open(path, "r:") as tar:
            files = (member for member in tar if not member.isdir())
            for key, members in groupby(files, key=lambda member: split(member.name)[0]):
                yield gathered(tar, Sample(f"{name}/{key}"), members)
                count += 1
    except BROKEN as error:
        why = " ".join(str(error).split())[:120]
        yield Sample(name, reason=f"the tar cannot be read after {count} samples: {why}")


def gathered(tar: tarfile.TarFile, sample: Sample, members: Iterator[tarfile.TarInfo]) -> Sample:
    for member in members:
        key, kind = split(member.name)
        if (why := refused(member, key)) is not None:
            sample.reason = why
        elif (file := tar.extractfile(member)) is not None and sample.reason is None and kind not in sample.files:
            try:
                data = contents(file, member.size, kind)
            except Unreadable as reason:
                sample.reason = str(reason)
                continue
            if data is not None:
                sample.files[kind] = data
    return sample


def contents(file: IO[bytes], size: int, kind: str) -> bytes | None:
    """A sidecar or picture; None of what is neither. A picture is known by its first bytes, whatever it is called."""
    if f".{kind}" in sidecar.SUFFIXES:
        if size > sidecar.MAXIMUM_BYTES:
            raise Unreadable(f"its {kind} file is larger than {sidecar.MAXIMUM_BYTES} bytes")
        data = file.read()
    else:
        try:
            data = taken(file, size)
        except Unreadable:
            if kind in PICTURES:
                raise
            return None
    if len(data) < size:
        raise EOFError("unexpected end of data")
    return data


def refused(member: tarfile.TarInfo, key: str) -> str | None:
    """Why a member is not read at all. Nothing would come of its name here; but who wrote it meant no good."""
    if not member.isreg():
        return "a link, a device or the like: only files are read"
    if key.startswith("/") or ".." in PurePosixPath(key).parts:
        return "its name leads out of the tar"
    return None


def split(name: str) -> tuple[str, str]:
    """A member's name as WebDataset reads it: up to the first dot of its last part, and the rest."""
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    folder, slash, last = name.rpartition("/")
    key, _, kind = last.partition(".")
    return folder + slash + key, kind.lower()


def read(settings: params.Photos, sample: Sample) -> Photo:
    """One sample as a photo; whatever is wrong with it becomes the reason of a rejected row."""
    key = PurePosixPath(sample.uri.partition(".tar/")[2])
    columns = {
        "id": sha256(sample.uri.encode()),
        "uri": sample.uri,
        "licence": settings.licence,
        "consent": settings.consent,
        "label": key.parts[0] if len(key.parts) > 1 else None,
    }
    try:
        if sample.reason:
            raise Unreadable(sample.reason)
        data = picture(sample)
        columns["id"] = sha256(data)  # first: it is known by it whatever its sidecar says
        columns |= stated(sample)
        return readable(decode(data, settings.maximum_pixels, settings.maximum_side), **columns)
    except Unreadable as reason:
        return unreadable(str(reason), **columns)


def picture(sample: Sample) -> bytes:
    """The first of its pictures; those that are called so go first."""
    kinds = [kind for kind in sample.files if f".{kind}" not in sidecar.SUFFIXES]
    if not kinds:
        raise Unreadable("the sample has no picture")
    return sample.files[min(kinds, key=lambda kind: kind not in PICTURES)]


def stated(sample: Sample) -> dict[str, str]:
    """Columns that its caption and JSON state, as a photo's sidecars do."""
    columns: dict[str, str] = {}
    for suffix, understand in ((".txt", sidecar.caption), (".json", sidecar.fields)):
        if (data := sample.files.get(suffix[1:])) is not None:
            columns |= understand(sidecar.text(data, suffix), suffix)
    return columns
