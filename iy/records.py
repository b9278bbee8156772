"""The rows that rooms exchange: one parquet row per photo, one per synthetic pair.

Nothing is dropped silently: rejected rows stay in the table with `verdict = "rejected"` and a `reason`.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from iy.errors import UserError
from iy.storage import atomic_path

VERSION = "3"
ACCEPTED, REJECTED = "accepted", "rejected"
DRAWN = "trainedAlgorithmicMedia"  # iy.source in the metadata of tables whose every row was drawn, in IPTC's word
SPLITS = ("train", "validation", "test")

PHOTO = pa.schema(
    [
        ("id", pa.string()),  # sha256 of the original bytes
        ("uri", pa.string()),  # where it came from
        ("licence", pa.string()),
        ("consent", pa.string()),  # basis on which the person's face may be used
        ("label", pa.string()),  # person as the source names them, or null
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),  # bytes, in the photos folder
        ("width", pa.int32()),
        ("height", pa.int32()),  # pixels, upright
        ("caption", pa.string()),
        ("attributes", pa.string()),  # JSON object of exact lexicon attributes (studio), or "{}"
        ("box", pa.list_(pa.float32())),  # x0, y0, x1, y1 in pixels
        ("landmarks", pa.list_(pa.float32())),  # x, y of left eye, right eye, nose, mouth corners, as seen, in pixels
        ("faces", pa.int32()),  # number of faces found
        ("face_size", pa.float32()),  # shorter side of the box, pixels
        ("sharpness", pa.float32()),  # variance of the Laplacian on the face crop resized to 112 px
        ("clipped", pa.float32()),  # share of that crop's pixels that are almost black or white
        ("yaw", pa.float32()),
        ("pitch", pa.float32()),
        ("roll", pa.float32()),  # degrees, from the landmarks
        ("quality", pa.float32()),  # 0..1, used for ranking
        ("scores", pa.string()),  # JSON object: 0..1 by name of the classifier that was asked, or null
        ("embedding", pa.list_(pa.float32())),
        ("recogniser", pa.string()),  # name@version of the embedding's model
        ("phash", pa.string()),  # 64-bit perceptual hash, hex
        ("person", pa.string()),  # person id after grouping
        ("split", pa.string()),  # train | validation | test, by person
        ("verdict", pa.string()),
        ("reason", pa.string()),
    ],
    metadata={"iy.record": "photo", "iy.version": VERSION},
)

PAIR = pa.schema(
    [
        ("id", pa.string()),  # sha256 of the target's bytes
        ("reference", pa.string()),  # photo id of the reference
        ("person", pa.string()),
        ("caption", pa.string()),  # caption of the target: the rewritten prompt
        ("source_caption", pa.string()),  # the reference's own caption
        ("rewriter", pa.string()),
        ("changed", pa.list_(pa.string())),  # attributes that the rewrite changed
        ("model", pa.string()),  # what drew and refined it: sha256 of the bundle, and of other models' files
        ("seed", pa.int64()),
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),  # bytes, in the synpairs folder
        ("similarity", pa.list_(pa.float32())),  # to the reference: before refinement, after pass 1, 2, ...
        ("kept_pass", pa.int32()),  # index into similarity
        ("lower", pa.float32()),
        ("upper", pa.float32()),  # the bounds that judged it
        ("recogniser", pa.string()),
        ("licence", pa.string()),
        ("consent", pa.string()),  # inherited from the reference
        ("decided_by", pa.string()),  # automatic, or who
        ("verdict", pa.string()),
        ("reason", pa.string()),
    ],
    metadata={"iy.record": "pair", "iy.version": VERSION, "iy.source": DRAWN},
)


def write(path: Path | str, rows: list[dict], schema: pa.Schema) -> None:
    """Write rows atomically; missing keys become null, unknown keys are a programming error."""
    stream(path, [rows], schema)


def stream(path: Path | str, several: Iterable[list[dict]], schema: pa.Schema) -> None:
    """`write` of rows that come some at a time; no more of them are held."""
    with atomic_path(path) as aside, pq.ParquetWriter(aside, schema) as file:
        for rows in several:
            for row in rows:
                assert not (extra := set(row) - set(schema.names)), f"unknown columns {sorted(extra)}"
            file.write_table(pa.Table.from_pylist(rows, schema=schema))


def read(
    path: Path | str, schema: pa.Schema, columns: list[str] | None = None, where: pc.Expression | None = None
) -> list[dict]:
    """Rows of a record table, refusing another kind or version of record by name: all columns, or some; all rows, or
    those that fulfil `where`, which sees these columns. What is not asked for is never held: tables may be large."""
    return [row for rows in batches(path, schema, columns, where=where) for row in rows]


def batches(
    path: Path | str,
    schema: pa.Schema,
    columns: list[str] | None = None,
    size: int = 1000,
    where: pc.Expression | None = None,
) -> Iterator[list[dict]]:
    """`read`, so many rows of the table at a time."""
    with opened(path, schema) as file:
        for batch in file.iter_batches(size, columns=columns):
            yield (batch if where is None else batch.filter(where)).to_pylist()


def rows(path: Path | str, schema: pa.Schema, start: int, stop: int) -> list[dict]:
    """Rows `start` to `stop` of a record table; of the others only what shares their row groups is read."""
    found: list[dict] = []
    with opened(path, schema) as file:
        first = 0
        for number in range(file.num_row_groups):
            count = file.metadata.row_group(number).num_rows
            if first < stop and first + count > start:
                group = file.read_row_group(number)
                found += group.slice(max(0, start - first), stop - max(first, start)).to_pylist()
            first += count
    return found


def picked(path: Path | str, schema: pa.Schema, numbers: Sequence[int]) -> list[dict]:
    """The rows of these numbers, in the table's order."""
    wanted, start, found = sorted(numbers), 0, []
    with opened(path, schema) as file:
        for batch in file.iter_batches(1000):
            here = [i - start for i in wanted if start <= i < start + len(batch)]
            found += batch.take(pa.array(here, pa.int64())).to_pylist() if here else []
            start += len(batch)
    return found


def opened(path: Path | str, schema: pa.Schema) -> pq.ParquetFile:
    """A record table, refusing another kind or version of record by name."""
    try:
        file = pq.ParquetFile(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run the stage that writes it first (dvc repro)") from None
    except pa.ArrowInvalid as error:
        raise UserError(
            f"{path} is not a readable parquet table ({error}): delete it and run its stage again"
        ) from None
    found, wanted = file.schema_arrow.metadata or {}, schema.metadata
    for key in (b"iy.record", b"iy.version"):
        if found.get(key) != wanted[key]:
            raise UserError(
                f"{path} holds {key.decode()}={found.get(key, b'nothing').decode()}, expected "
                f"{wanted[key].decode()}: run the stage that writes it again"
            )
    return file


def usable(split: str) -> pc.Expression:
    """The accepted photos of a split."""
    return (pc.field("verdict") == ACCEPTED) & (pc.field("split") == split)


def accepted(rows: list[dict]) -> list[dict]:
    return [row for row in rows if row["verdict"] == ACCEPTED]
