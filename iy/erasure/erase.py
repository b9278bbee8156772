"""Taking photos out of everything that holds them. Killed at any moment, it goes on when it is started again: what was
found is on disk before anything is taken away.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from iy import erased, git, project
from iy.erasure import decisions, encoded, runs, tables, versions
from iy.erasure.find import Found, find
from iy.errors import UserError
from iy.names import clean
from iy.storage import write_json
from iy.tracking import connect

if TYPE_CHECKING:
    from mlflow import MlflowClient

JOURNAL = Path(".iy", "erasing.json")
# Copies of reports; what was fetched, and unfinished stages; captions that language models wrote; what is trained on.
KEPT = ("reports", "resume", "answers", "encoded")


LEFT = (
    "other photographs of them, which may still be drawn from: see `iy policy`, and --block",
    "the photographs themselves, where they come from",
    "what `iy push` sent elsewhere, and backups",
    "git's history of decisions/, which names ids: see git-filter-repo",
    "the weights of models that learnt from them: tagged, for you to decide",
)


class Step(NamedTuple):
    what: str
    do: Callable[[], None]


def plan(names: Sequence[str]) -> tuple[Found, Iterator[str]]:
    """What is to be erased, and the lines that tell it: what `names` mean, or an erasure that was interrupted."""
    if not JOURNAL.exists():
        if not names:
            raise UserError("name the photos or persons to erase")
        return find(names)
    found = Found(**json.loads(JOURNAL.read_text()))
    if names and [clean(one) for one in names] != [clean(one) for one in found.names]:
        raise UserError("another erasure was interrupted: finish it first, by `iy erase` without names")
    return found, iter([f"going on with the erasure of {len(found.photos)} photos"])


def erase(found: Found) -> Path:
    """Take every step, and write what was done; the path of that report."""
    runs.refuse_elsewhere(found.runs)
    write_json(JOURNAL, asdict(found))
    done = []
    for step in steps(found):
        step.do()
        done.append(step.what)
    path = report_path()
    write_json(
        path,
        {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "photos": found.photos,
            "pairs": found.pairs,
            "done": done,
            "left": LEFT,
        },
    )
    JOURNAL.unlink()
    return path


def report_path() -> Path:
    """A name that no report has yet."""
    today = datetime.now(UTC).date().isoformat()
    number = 1 + len(list(erased.LIST.parent.glob(f"report-{today}-*.json")))
    return erased.LIST.parent / f"report-{today}-{number}.json"


def steps(found: Found) -> Iterator[Step]:
    """In this order: a photo is never used again before it is gone, and models say so before their data are."""
    yield Step(f"{erased.LIST}: {len(found.photos)} photos are never used again", lambda: erased.add(found.photos))
    if found.models or found.runs:
        yield from steps_in_mlflow(found, connect())
    for name, store in versions.stores() if any(found.objects.values()) else ():
        objects = found.objects.get(name, [])
        yield Step(
            f"{name}: {len(objects)} objects removed",
            lambda store=store, objects=objects: versions.remove(store, objects),
        )
    for name, number in found.decisions.items():
        yield Step(f"{name}: {number} decisions removed", lambda: decisions.remove({*found.photos, *found.pairs}))
    for profile in found.profiles:
        for folder in (Path("data", profile), Path("reports", profile)):
            yield Step(f"{folder}: removed, `iy run` makes it again", lambda folder=folder: clear(folder))
    for url in encoded.places():
        yield Step(f"{url}: what training had encoded, removed", lambda url=url: encoded.remove(url))
    for folder in tables.left():
        yield Step(f"{folder}: removed, the run that left it begins anew", lambda folder=folder: leave(folder))
    for folder in kept():
        yield Step(f"{folder}: removed", lambda folder=folder: clear(folder))


def steps_in_mlflow(found: Found, client: "MlflowClient") -> Iterator[Step]:
    text = f"{len(found.photos)} photos of its data were erased on {datetime.now(UTC).date().isoformat()}"
    for name, version in found.models:
        model = runs.Model(name, version, [])
        yield Step(f"model {model}: tagged {runs.TAG}", lambda model=model: runs.tag(client, model, text))
    for run in found.runs:
        yield Step(f"MLflow run {run}: pictures and reports removed", lambda run=run: runs.strip(client.get_run(run)))


def kept() -> list[Path]:
    """Here, and where this is a worktree in the project that it belongs to too."""
    here, shared = Path(project.STATE), project.state()
    places = [here] if here.resolve() == shared.resolve() else [here, shared]
    return [place / name for place in places for name in KEPT]


def leave(worktree: Path) -> None:
    clear(worktree)
    git.call("worktree", "prune")


def clear(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
