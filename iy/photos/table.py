"""Photographs that a table lists, a row each: `photos: {source: table, path: people.csv}`.

CSV, JSON lines or parquet; Hugging Face's imagefolder (a folder with metadata.csv, .jsonl or .parquet) and its parquet
data sets, whose pictures lie in the table itself. A row names a file in the table's folder, or an object s3://….
"""

import csv
import json
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from iy import params, s3
from iy.errors import UserError
from iy.photos import sidecar
from iy.photos.bucket import existing
from iy.photos.photo import Photo, read_all, readable, unreadable
from iy.pictures import Unreadable, contents, decode, refuse_large
from iy.storage import sha256

KINDS = (".csv", ".jsonl", ".parquet")
METADATA = tuple(f"metadata{kind}" for kind in KINDS)  # Hugging Face's imagefolder
COLUMNS = {  # what a column may be called
    "image": ("image",),
    "uri": ("uri", "file_name", "path"),
    "caption": ("caption", "text"),
    "label": ("person", "label"),
    "licence": ("licence", "license"),
    "consent": ("consent",),
    "sha256": ("sha256",),
}
LONGEST = 2**26  # characters of a CSV field or JSON line: a table that has more is broken off


class Row(NamedTuple):
    """One row: `where` names it in messages, `folder` is its table's; `said` by our names for the columns, of what is
    filled in."""

    where: str
    folder: PurePosixPath
    said: dict[str, Any]
    reason: str | None = None


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
    return read_all(partial(read, Files(root), settings), rows, workers.count)


def found(place: Path) -> list[Path]:
    """The table at `place`; of a folder its metadata, or all its parquet files."""
    if place.is_file():
        if place.suffix.lower() not in KINDS:
            raise UserError(f"photos.path {place} is no table: name a file that ends in {', '.join(KINDS)}")
        return [place]
    if not place.is_dir():
        raise UserError(f"photos.path {place} does not exist: name a table of photographs")
    tables = sorted(path for path in place.rglob("*") if path.name in METADATA) or sorted(place.rglob("*.parquet"))
    if not tables:
        raise UserError(f"photos.path {place} holds no table: {', '.join(METADATA)} or parquet files")
    return tables


def numbered(path: Path, name: str) -> Iterator[Row]:
    """The rows of one table, read as they are needed. One that breaks off gives a last row that says so."""
    reader = {".csv": from_csv, ".jsonl": from_lines, ".parquet": from_parquet}[path.suffix.lower()]
    number, beside = 0, PurePosixPath(name).parent
    try:
        for number, said in enumerate(reader(path), 1):
            where = f"{name}#{number}"
            yield Row(where, beside, {}, said) if isinstance(said, str) else Row(where, beside, said)
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        why = " ".join(str(error).split())[:120]
        yield Row(name, beside, {}, f"the table cannot be read after {number} rows: {why}")


def columns(names: list[str], path: Path) -> dict[str, str]:
    """Our name of each column that is used -> the table's."""
    used = {ours: next((name for name in theirs if name in names), None) for ours, theirs in COLUMNS.items()}
    if not (used["image"] or used["uri"]):
        raise UserError(
            f"{path} has neither a column image nor one of {', '.join(COLUMNS['uri'])}: it has "
            f"{', '.join(names)[:200] or 'none'}"
        )
    return {ours: theirs for ours, theirs in used.items() if theirs}


def from_csv(path: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(LONGEST)
    with open(path, encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file)
        used = columns(list(table.fieldnames or []), path)
        for row in table:
            yield {ours: row[theirs] for ours, theirs in used.items() if row[theirs]}


def from_lines(path: Path) -> Iterator[dict[str, Any] | str]:
    with open(path, encoding="utf-8-sig") as file:
        while line := file.readline(LONGEST):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                yield "the line is not valid JSON"
                continue
            if not isinstance(row, dict):
                yield "the line is no JSON object"
                continue
            theirs = {
                ours: next((name for name in names if row.get(name) is not None), None)
                for ours, names in COLUMNS.items()
            }
            yield {ours: row[name] for ours, name in theirs.items() if name}


def from_parquet(path: Path) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(path) as table:
        schema = table.schema_arrow
        used = columns(schema.names, path)
        names = class_names(schema, used.get("label"))
        for batch in table.iter_batches(batch_size=16, columns=list(used.values())):
            for row in batch.to_pylist():
                said = {ours: row[theirs] for ours, theirs in used.items() if row[theirs] is not None}
                if names and isinstance(label := said.get("label"), int) and 0 <= label < len(names):
                    said["label"] = names[label]
                yield said


def class_names(schema: pa.Schema, column: str | None) -> list[str] | None:
    """What the numbers of a label column stand for, where Hugging Face's `datasets` wrote it down."""
    try:
        kind = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][column]
        return kind["names"] if kind.get("_type") == "ClassLabel" else None
    except (KeyError, ValueError, TypeError, AttributeError):
        return None


class Files:
    """What rows name: files below `root`, and objects in S3. Nothing else: a table may come from anyone."""

    def __init__(self, root: Path):
        self.root = root.resolve()

    @cached_property
    def store(self) -> Any:
        return s3.client()

    def contents(self, uri: str) -> bytes:
        if uri.startswith(s3.SCHEME):
            return self.object(uri)
        if "://" in uri:
            raise Unreadable(f"{uri.partition('://')[0]}:// is not fetched: list files, or objects s3://bucket/key")
        try:
            path = (self.root / uri).resolve()
        except (OSError, ValueError, RuntimeError):  # a zero byte, links in a circle
            raise Unreadable("it names no file") from None
        if PurePosixPath(uri).is_absolute() or not path.is_relative_to(self.root):
            raise Unreadable("it names a file outside the table's folder")
        return contents(path)

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


def read(files: Files, settings: params.Photos, row: Row) -> Photo:
    """One row as a photo; whatever is wrong with it becomes the reason of a rejected row."""
    said = row.said
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
        found = picture(row)
        if isinstance(found, str):
            kept["uri"] = found.encode("utf-8", "backslashreplace").decode()  # JSON may hold halves of characters
        data = files.contents(found) if isinstance(found, str) else found
        kept["id"] = sha256(data)  # first: it is known by it whatever its row says
        kept |= stated(said, row.where)
        if (wanted := said.get("sha256")) and wanted != kept["id"]:
            raise Unreadable(f"its bytes are not those that the table names: sha256 is {kept['id']}")
        return readable(decode(data, settings.maximum_pixels, settings.maximum_side), **kept)
    except Unreadable as reason:
        return unreadable(str(reason), **kept)


def picture(row: Row) -> bytes | str:
    """The bytes that a row holds, or the place that it names."""
    image, uri = row.said.get("image"), row.said.get("uri")
    if isinstance(image, dict):  # as `datasets` writes them: {"bytes": …, "path": …}
        image, uri = image.get("bytes"), uri or image.get("path")
    if isinstance(image, bytes):
        return image
    uri = uri if isinstance(uri, str) else image
    if not isinstance(uri, str) or not uri.strip():
        raise Unreadable("the row names no picture")
    return uri if "://" in uri else str(row.folder / uri)


def stated(said: dict[str, Any], where: str) -> dict[str, str]:
    """What the row says of its photo, by the rules of sidecars. A label may be a number."""
    value = {key: said[ours] for key, ours in sidecar.KEYS.items() if ours in said}
    if isinstance(value.get("person"), int):
        value["person"] = str(value["person"])
    return sidecar.checked(value, f"the row {where}")
