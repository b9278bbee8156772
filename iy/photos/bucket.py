"""Photographs in S3, named and labelled as those in a folder are: `photos: {source: s3, path: s3://bucket/folder}`.

What is fetched is kept in `.iy/` until the stage has read everything: killed, it goes on with what is missing.
"""

import contextlib
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import PurePosixPath

from iy import params, s3
from iy.errors import UserError
from iy.photos import kept, kinds, persons, sidecar
from iy.photos.photo import Photo, read_all, readable, unreadable
from iy.photos.sidecar import Sidecars
from iy.pictures import Unreadable, decode, refuse_large
from iy.storage import sha256, write_bytes

STREAMS = 16  # photos on their way at a time: what waits is the network


class Bucket:
    """The objects below one folder of a bucket, by their path within it."""

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        self.name, self.folder = s3.place(url, "photos.path")
        self.store = s3.client(STREAMS)
        start = len(self.folder) + 1 if self.folder else 0
        self.items = {item.key[start:]: item for item in s3.listed(self.store, self.name, self.folder)}

    def contents(self, path: str) -> bytes:
        """A photo or sidecar; one that may not be read, or is gone since it was listed, is `Unreadable`."""
        item = self.items[path]
        here = kept.place(self.name, item)
        if here.exists():
            return here.read_bytes()
        with existing(item.key):
            data = s3.contents(self.store, self.name, item.key)
        write_bytes(here, data)
        return data

    def sidecars(self, photos: list[str]) -> Sidecars:
        others = (path for path in self.items if not kinds.hidden(PurePosixPath(path).parts))
        return Sidecars(photos, set(others).difference(photos), self.speaks)

    def speaks(self, path: str) -> bool:
        """Whether an object that is of no single photo says something of licences or consents."""
        try:
            return self.items[path].size > sidecar.LONGEST or sidecar.speaks_of_rights(self.contents(path))
        except Unreadable:
            return True

    def text(self, path: str) -> bytes:
        """A sidecar."""
        if self.items[path].size > sidecar.MAXIMUM_BYTES:
            raise Unreadable(sidecar.TOO_LARGE.format(PurePosixPath(path).name))
        return self.contents(path)


@contextlib.contextmanager
def existing(key: str) -> Iterator[None]:
    """An object that may not be read, or is not there, is `Unreadable`. A store that fails raises what boto3 says."""
    from botocore.exceptions import ClientError

    try:
        yield
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") not in (403, 404, 412):
            raise
        code = error.response["Error"].get("Code", "unknown")
        raise Unreadable(f"the object {PurePosixPath(key).name} cannot be read: {code}") from None


def photos(settings: params.Photos, workers: params.Workers) -> Iterator[Photo]:
    """The bucket's photos, ordered by path."""
    if settings.path is None:
        raise UserError("photos.source: s3 needs photos.path: name the place, s3://bucket/folder")
    with s3.told(settings.path, "photos.path"):
        bucket = Bucket(settings.path)
        names = sorted(path for path in bucket.items if kinds.is_photo(PurePosixPath(path).parts))
        if not names:
            raise UserError(
                f"photos.path {settings.path} holds no files: put photographs there, in one sub-folder per "
                "person or all in one folder"
            )
        folders = [PurePosixPath(path).parts[:-1] for path in names]
        by_date = persons.dated(folders)
        persons.tell(folders, by_date, settings.path)
        yield from read_all(partial(read, bucket, bucket.sidecars(names), by_date, settings), names, STREAMS)
    shutil.rmtree(kept.KEPT / bucket.name, ignore_errors=True)


def read(bucket: Bucket, sidecars: Sidecars, by_date: bool, settings: params.Photos, path: str) -> Photo:
    """One object as a photo. What is wrong with it is a rejected row's reason; a store that fails ends the stage."""
    columns = {
        "id": sha256(path.encode()),
        "uri": f"{bucket.url}/{path}",
        "licence": settings.licence,
        "consent": settings.consent,
        "label": persons.person(PurePosixPath(path).parts[:-1], by_date),
    }
    try:
        refuse_large(bucket.items[path].size)
        data = bucket.contents(path)
        columns["id"] = sha256(data)  # first: it is known by it whatever its sidecar says
        columns |= sidecar.read((PurePosixPath(one).name, bucket.text(one)) for one in sidecars.of(path))
        return readable(decode(data, settings.maximum_pixels, settings.maximum_side), **columns)
    except Unreadable as reason:
        return unreadable(reason, **columns)
