"""What can be wrong with a project's own store, a database that MLflow alone would speak of too late or not at all.

MLflow writes down where pictures and models lie as absolute places: a project folder that is moved, renamed or copied
keeps the old ones, so that runs lose their pictures and an erasure finds none.
"""

import contextlib
import logging
import os
import re
import sqlite3
from pathlib import Path
from shlex import quote
from urllib.parse import unquote, urlparse

from iy import project

ARTIFACTS = Path(".iy", "mlartifacts")  # below the project's root
PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)
OURS = re.compile(rf"file://.*?/{re.escape(ARTIFACTS.as_posix())}(?=/)")
log = logging.getLogger(__name__)


def address(database: Path) -> str:
    project.refuse_misread(database)
    return f"sqlite:///{database}"


def make(database: Path) -> None:
    """A new store beside its artifacts, if there is none: whole, or none of it.

    MLflow needs seconds for it, and what is left by a process that is killed meanwhile it refuses ever after, as a
    database of an older version.
    """
    if database.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    draft = database.with_name(f".new-{database.name}")
    database.parent.mkdir(parents=True, exist_ok=True)
    for left in database.parent.glob(f"{draft.name}*"):  # by one that was killed, SQLite's journal too
        left.unlink()
    SqlAlchemyStore(address(draft), (database.parent / ARTIFACTS.name).as_uri()).engine.dispose()
    os.replace(draft, database)


def fault(database: Path) -> str | None:
    """Why this MLflow cannot use the database, with the way out; None where the database is not the reason."""
    try:
        made_by = version(database)
    except sqlite3.OperationalError:  # busy, or not to be opened: that may pass
        return None
    except sqlite3.DatabaseError:
        return f"{database} is not a database any more: move it away, then run again (a new one is made)"
    known, newest = versions()
    if made_by is None or made_by == newest:
        return None
    if made_by not in known:
        return (
            f"{database} was written by a newer MLflow than the one installed here: install that one, or move the file "
            "away, then run again (a new one is made)"
        )
    return (
        f"{database} was written by an older MLflow: copy it, then run `mlflow db upgrade {quote(address(database))}`, "
        "then run again"
    )


def version(database: Path) -> str | None:
    """The version of the tables; None where there are none yet."""
    if not database.is_file():
        return None
    with contextlib.closing(sqlite3.connect(database)) as opened:
        if "alembic_version" not in tables(opened):
            return None
        row = opened.execute("SELECT version_num FROM alembic_version").fetchone()
        return row and row[0]


def versions() -> tuple[set[str], str | None]:
    """Those that the installed MLflow knows, and its own."""
    import mlflow.store
    from alembic.script import ScriptDirectory

    known = ScriptDirectory(str(Path(mlflow.store.__path__[0], "db_migrations")))
    return {one.revision for one in known.walk_revisions()}, known.get_current_head()


def tables(opened: sqlite3.Connection) -> set[str]:
    return {name for (name,) in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def follow(database: Path, root: Path) -> None:
    """Where the project came here from another folder, its pictures and models lie here too: say so to the store.

    Not where they stayed behind: the other folder is still there, and nothing of them is here.
    """
    here = (root / ARTIFACTS).as_uri()
    with (
        contextlib.suppress(sqlite3.DatabaseError),
        contextlib.closing(sqlite3.connect(database, timeout=20)) as opened,
    ):
        there = {table for table, _ in PLACES} & tables(opened)
        for old in sorted(places(opened) - {here}):
            if (root / ARTIFACTS).exists() or not path_of(old).exists():
                for table, column in PLACES:
                    if table in there:
                        move(opened, table, column, old, here)
                opened.commit()
                log.warning("MLflow named %s, where this project is no more: it names %s now", old, here)


def places(opened: sqlite3.Connection) -> set[str]:
    """The folders of projects that experiments lie in, as URIs."""
    if "experiments" not in tables(opened):
        return set()
    named = opened.execute("SELECT artifact_location FROM experiments")
    return {found[0] for (place,) in named if place and (found := OURS.match(place))}


def move(opened: sqlite3.Connection, table: str, column: str, old: str, new: str) -> None:
    opened.execute(
        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
        (new, len(old) + 1, len(old) + 1, f"{old}/"),
    )


def path_of(uri: str) -> Path:
    return Path(unquote(urlparse(uri).path))
