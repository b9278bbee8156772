"""Photographs that a table lists, a row each: `photos: {source: table, path: people.csv}`.

CSV, JSON lines or parquet; Hugging Face's imagefolder (a folder with metadata.csv, .jsonl or .parquet) and its parquet
data sets, whose pictures lie in the table itself. A row names a file in the table's folder, or an object s3://….
"""

import logging
import unicodedata
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any

from iy import params, s3
from iy.errors import UserError
from iy.photos import folder, kinds, persons, said, sidecar
from iy.photos.bucket import existing
from iy.photos.kinds import METADATA
from iy.photos.photo import Photo, read_all, readable, unreadable
from iy.photos.rows import Row, numbered
from iy.photos.sidecar import Sidecars
from iy.pictures import Unreadable, contents, decode, refuse_large
from iy.spreadsheet import TABLES
from iy.storage import sha256

log = logging.getLogger(__name__)


def photos(settings: params.Photos, workers: params.Workers) -> Iterator[Photo]:
    """The tables' photos, tables by name, rows in their order."""
    if settings.path is None:
        raise UserError(
            "photos.source: table needs photos.path: name a CSV, JSON lines or parquet file, or a folder of them"
        )
    place = Path(settings.path).expanduser()
    tables = found(place)
    root = place if place.is_dir() else place.parent
    rows = (row for path in tables for row in numbered(path, path.relative_to(root).as_posix()))
    files = Files(root)
    yield from read_all(partial(read, files, settings), rows, workers.count)
    if place.is_dir():
        tell_left_out(files, place)


def tell_left_out(files: "Files", place: Path) -> None:
    """Say which pictures no row names."""
    pictures = (path for path in sorted(place.rglob("*")) if kinds.is_picture(path.name) and not path.is_dir())
    within = (path for path in pictures if not kinds.hidden(path.relative_to(place).parts))
    if left := [str(path.relative_to(place)) for path in within if path.resolve() not in files.named]:
        log.warning("photos: %d pictures are named by no row, and left out: %s", len(left), persons.some(set(left)))


def found(place: Path) -> list[Path]:
    """The table at `place`; of a folder its metadata, or all its parquet files."""
    if place.is_file():
        if place.suffix.lower() not in TABLES:
            raise UserError(f"photos.path {place} is no table: name a file that ends in {', '.join(TABLES)}")
        return [place]
    if not place.is_dir():
        raise UserError(f"photos.path {place} does not exist: name a table of photographs")
    every = [path for path in sorted(place.rglob("*")) if not kinds.hidden(path.relative_to(place).parts)]
    tables = [path for path in every if kinds.is_metadata(path.name)]
    tables = tables or [path for path in every if path.suffix.lower() == ".parquet"]
    if not tables:
        raise UserError(f"photos.path {place} holds no table: {', '.join(METADATA)} or parquet files")
    return tables


class Files:
    """What rows name: files below `root`, and objects in S3. Nothing else: a table may come from anyone."""

    def __init__(self, root: Path):
        self.root = root.resolve()
        self.named: set[Path] = set()  # what was asked for
        self.folders: dict[Path, Sidecars] = {}

    @cached_property
    def store(self) -> Any:
        return s3.client()

    def contents(self, uri: str) -> bytes:
        if uri.startswith(s3.SCHEME):
            return self.object(uri)
        if "://" in uri:
            raise Unreadable(f"{uri.partition('://')[0]}:// is not fetched: list files, or objects s3://bucket/key")
        try:
            path = (self.root / self.called(uri)).resolve()
        except (OSError, ValueError, RuntimeError):  # a zero byte, links in a circle
            raise Unreadable("it names no file") from None
        if PurePosixPath(uri).is_absolute() or not path.is_relative_to(self.root):
            raise Unreadable("it names a file outside the table's folder")
        self.named.add(path)
        return contents(path)

    def called(self, uri: str) -> str:
        """The name by which a file is there: tables from a Mac or Windows write letters and folders otherwise."""
        written = (uri, uri.replace("\\", "/"))
        forms = (unicodedata.normalize(form, one) for one in written for form in ("NFC", "NFD"))
        return next((one for one in (*written, *forms) if (self.root / one).exists()), uri)

    def beside(self, uri: str) -> dict[str, str]:
        """What the sidecars of a file say; of objects in S3 nothing is asked."""
        if "://" in uri:
            return {}
        path = self.root / self.called(uri)
        if path.parent not in self.folders:
            names = [one.name for one in path.parent.iterdir() if not kinds.hidden((one.name,)) and one.is_file()]
            photos = [name for name in names if kinds.is_photo((name,))]
            others = {name for name in names if not kinds.is_metadata(name)}.difference(photos)
            wide = partial(speaks, path.parent)
            self.folders[path.parent] = Sidecars(photos, others, wide)
        return sidecar.read(folder.beside(path.parent / one) for one in self.folders[path.parent].of(path.name))

    def object(self, uri: str) -> bytes:
        try:
            bucket, key = s3.place(uri, "uri")
        except UserError as error:
            raise Unreadable(str(error)) from None
        if not key:
            raise Unreadable(f"{uri} names no object: list s3://bucket/key")
        with s3.told(uri, "photos.path"), existing(key):
            refuse_large(s3.size(self.store, bucket, key))
            return s3.contents(self.store, bucket, key)


def speaks(place: Path, name: str) -> bool:
    """Whether JSON that is of no single photo says something of licences; the tables here were chosen to be read."""
    return not kinds.is_table(name) and sidecar.file_speaks(place / name)


def read(files: Files, settings: params.Photos, row: Row) -> Photo:
    """One row as a photo; whatever is wrong with it becomes the reason of a rejected row."""
    kept = {
        "id": sha256(row.where.encode()),
        "uri": row.where,
        "licence": settings.licence,
        "consent": settings.consent,
        "label": None,
    }
    try:
        if row.reason:
            raise Unreadable(row.reason)
        understood = said.understood(row.said, f"the row {row.where}")
        found = picture(row.folder, understood)
        named = found if isinstance(found, str) else None
        if named is not None:
            kept["uri"] = named.encode("utf-8", "backslashreplace").decode()  # JSON may hold halves of characters
        data = files.contents(found) if isinstance(found, str) else found
        kept["id"] = sha256(data)  # first: it is known by it whatever its row says
        beside = files.beside(named) if named else {}
        kept |= said.joined(beside, said.checked(understood, f"the row {row.where}"))
        if (wanted := understood.get("sha256")) and wanted != kept["id"]:
            raise Unreadable(f"its bytes are not those that the table names: sha256 is {kept['id']}")
        return readable(decode(data, settings.maximum_pixels, settings.maximum_side), **kept)
    except Unreadable as reason:
        return unreadable(reason, **kept)


def picture(place: PurePosixPath, understood: dict[str, Any]) -> bytes | str:
    """The bytes that a row holds, or the place that it names."""
    image, uri = understood.get("image"), understood.get("uri")
    if isinstance(image, dict):  # as `datasets` writes them: {"bytes": …, "path": …}
        image, uri = image.get("bytes"), uri or image.get("path")
    if isinstance(image, bytes):
        return image
    uri = uri if isinstance(uri, str) else image
    if not isinstance(uri, str) or not uri.strip():
        raise Unreadable("the row names no picture")
    return uri if "://" in uri else str(place / uri.strip())
