"""Which tables speak of a photo: photos by id, source, label or person; pairs by the photo that they were made from."""

import io
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from iy import names, project
from iy.errors import UserError
from iy.storage import sha256

MAGIC = b"PAR1"
COLUMNS = ("id", "uri", "label", "person", "reference")
SHORTEST = 8  # characters of an id that name a photo


class Table(NamedTuple):
    """Of one table the columns that name photos: `place` for messages, the `digest` of its bytes, rows of `COLUMNS`."""

    place: str
    digest: str
    rows: list[dict]

    @property
    def photos(self) -> dict[str, dict]:
        """Rows of photos by id; a pair's or a drawing's names its photo as `reference`."""
        return {row["id"]: row for row in self.rows if row["id"] and not row["reference"]}

    def holding(self, photos: set[str]) -> list[dict]:
        return [row for row in self.rows if row["id"] in photos or row["reference"] in photos]


def parse(data: bytes, place: str) -> Table | None:
    """None for what is no table of ours."""
    if not data.startswith(MAGIC):
        return None
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        there = [name for name in COLUMNS if name in file.schema_arrow.names]
        rows = file.read(columns=there).to_pylist()
    except (pa.ArrowException, OSError):
        return None
    if not {"id", "reference"} & set(there):
        return None
    return Table(place, sha256(data), [dict.fromkeys(COLUMNS) | row for row in rows])


def here(root: Path = Path()) -> Iterator[Table]:
    """The project's own: what lies under data/ and reports/."""
    for path in sorted(path for part in ("data", "reports") for path in (root / part).rglob("*.parquet")):
        if (table := parse(path.read_bytes(), str(path))) is not None:
            yield table


def unfinished() -> Iterator[Table]:
    """Those in the folders that runs which did not end have left, to go on in."""
    for folder in left():
        paths = (path for path in folder.rglob("*.parquet") if not {".iy", ".dvc"} & {*path.relative_to(folder).parts})
        for path in sorted(paths):
            if (table := parse(path.read_bytes(), str(path))) is not None:
                yield table


def left() -> list[Path]:
    """Those folders: git worktrees, see flows/experiment.py."""
    return sorted(path for path in (project.state() / "experiments").glob("*") if path.is_dir())


def named(wanted: Iterable[str], tables: list[Table]) -> set[str]:
    """Ids of the photos that are `wanted`: by id or its beginning, source, or person as source or curate name them."""
    found: set[str] = set()
    for name in wanted:
        meant = {one for table in tables for one, row in table.photos.items() if means(name, row)}
        if not meant:
            close = nearly(name, tables)
            raise UserError(
                f"{name!r} is no photo and no person of this project: name an id (or its first {SHORTEST} "
                "characters), a source (uri), or a person's label" + (f"; nearly so called: {close}" if close else "")
            )
        by_id = {one for one in meant if one.startswith(name)}
        if len(by_id) > 1:
            raise UserError(f"{name!r} begins the ids of {len(by_id)} photos: give more of it")
        found |= meant
    return found


def means(name: str, row: dict) -> bool:
    """Whether a name, in any spelling of its letters and spaces, is one of the row's; an empty one is none."""
    own = names.clean(name)
    return bool(own) and (
        own in {names.clean(row[key]) for key in ("id", "uri", "label", "person") if row[key]}
        or (len(own) >= SHORTEST and row["id"].startswith(own))
    )


def nearly(name: str, tables: list[Table], found: Collection[str] = ()) -> str:
    """Persons that `name` may mean too, with how many photos each has that are not among the `found`."""
    photos: dict[str, set[str]] = {}
    for table in tables:
        for one, row in table.photos.items():
            for person in {row["label"], row["person"]} - {None} if one not in found else ():
                photos.setdefault(names.clean(person), set()).add(one)
    return ", ".join(f"{person!r} ({len(photos[person])} photos)" for person in names.near(name, photos))


def made_of(photos: set[str], tables: list[Table]) -> set[str]:
    """Ids of the pairs whose reference is one of the photos."""
    return {row["id"] for table in tables for row in table.rows if row["id"] and row["reference"] in photos}
