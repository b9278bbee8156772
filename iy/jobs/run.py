"""A table of jobs to a folder of pictures: what `iy generate --table jobs.csv` does.

What is in the way is told first: rows that cannot be drawn are named with their column and the remedy, and skipped. The
rest is drawn shard by shard by the workers that curation has, each picture's file whole or not at all. Whatever was
drawn is known again by everything that decides it, so a run that was killed, or whose table has changed since, draws
what is missing. While it is unfinished, notes and faces lie in `<out>/.unfinished`.
"""

import contextlib
import fcntl
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from iy import workers
from iy.device import choose_device
from iy.errors import UserError
from iy.generate.portrait import Terms, model_name
from iy.jobs import draw, faces, table
from iy.jobs.draw import Shard, Task
from iy.jobs.faces import Crop
from iy.jobs.orders import Defaults, Order, Refused, read
from iy.model.bundle import locate, read_config
from iy.params import Base, Params
from iy.provenance.mark import clock, open_marker, said_time
from iy.provenance.xmp import COMPOSED
from iy.resume import code_digest, digest
from iy.storage import file_sha256, folder_digest, folder_sha256, write_json

UNFINISHED = ".unfinished"
TOLD = 20  # refused rows that are told one by one
AT_A_TIME = 4  # batches of a shard, at most
NO_SPACE = (13, 28)  # errno: permission denied, no space left
log = logging.getLogger(__name__)


class Done(NamedTuple):
    """drawn: pictures of this run; kept: those that were there; refused: rows that are not drawn."""

    drawn: int
    kept: int
    refused: list[Refused]
    sheets: list[Path]


def draw_table(settings: Params, bundle: Path, path: Path, out: Path, seed: int) -> Done:
    """Draw every row of the table at `path` into the folder `out`. seed: of rows that name none."""
    try:
        return drawn(settings, bundle, path, out, seed)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        told = f"{error.filename or out}: {error.strerror}: free space or change permissions, then run again"
        raise UserError(told) from None


def drawn(settings: Params, bundle: Path, path: Path, out: Path, seed: int) -> Done:
    config = read_config(bundle)
    base: Base = config["base"]
    orders, refused = read(path, Defaults(settings.draw, seed, base.image_size, frozenset(config["model"].alpha)))
    refuse_foreign(out)
    (out / UNFINISHED / "notes").mkdir(parents=True, exist_ok=True)
    with alone(out):
        return into(out, orders, refused, settings, bundle, base, path)


@contextlib.contextmanager
def alone(out: Path) -> Iterator[None]:
    """While the block runs no other run draws into the folder; the kernel forgets a run that was killed."""
    with (out / UNFINISHED / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another run is drawing into {out}: wait for it, or name another folder") from None
        yield


def into(
    out: Path,
    orders: Sequence[Order],
    refused: list[Refused],
    settings: Params,
    bundle: Path,
    base: Base,
    path: Path,
) -> Done:
    """Draw the orders of the table at `path`, write what the folder says of itself, and clear up."""
    work = out / UNFINISHED
    crops = faces.find((source for order in orders for source in order.people), settings, bundle, work / "faces")
    tasks, faceless = with_faces(orders, crops, made_by(settings, bundle, base))
    tell(refused + faceless)
    missing = without_known(tasks, out)
    unfit = draw_missing(missing, settings, bundle, out) if missing else []
    tell(unfit)
    refused = refused + faceless + unfit
    gone = {one.row for one in unfit}
    pictures = [task for task in tasks if task.order.row not in gone]
    if not pictures:
        leave_nothing(out)
        raise UserError(f"{path}: no row can be drawn" + (f": {refused[0].told()}" if refused else ": it has none"))
    workers.must_be_here([out / task.order.file for task in pictures])
    table.write(out, pictures, refused)
    sheets = list(table.sheets(out, [task.order.file for task in pictures], export_sheets(settings, bundle)))
    shutil.rmtree(work)
    return Done(len(missing) - len(unfit), len(tasks) - len(missing), refused, sheets)


def refuse_foreign(out: Path) -> None:
    """Refuse a folder that holds what no table drew: a name in the table may be one of its files'."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file: name a folder for the pictures of a table")
    if out.is_dir() and any(out.iterdir()) and not ((out / table.NAME).exists() or (out / UNFINISHED).exists()):
        raise UserError(f"--out {out} holds other files: name a new or an empty folder for the pictures")


def leave_nothing(out: Path) -> None:
    """Take back the folder of a run that drew nothing; what earlier ones drew stays."""
    shutil.rmtree(out / UNFINISHED)
    if not any(out.iterdir()):
        out.rmdir()


def with_faces(orders: Sequence[Order], crops: dict, made: str) -> tuple[list[Task], list[Refused]]:
    """The orders whose every face was found, and the others."""
    tasks, refused = [], []
    for order in orders:
        found = [crops[source] for source in order.people]
        lacking = [i for i, one in enumerate(found) if not isinstance(one, Crop)]
        if lacking:
            column = "reference" if order.people[lacking[0]].kind == "photo" else "person"
            refused.append(Refused(order.row, f"column {column}: {found[lacking[0]]}"))
        else:
            tasks.append(Task(order, tuple(found), key(order, found, made)))
    return tasks, refused


def made_by(settings: Params, bundle: Path, base: Base) -> str:
    """What decides all pictures alike: the bundle, the base's weights that lie here, the code, how it computes, what is
    said of them."""
    places = sorted({part.path for part in locate(base, bundle).parts().values()})
    weights = [folder_sha256(place) if Path(place).is_dir() else place for place in places]
    how = [settings.jobs.model_dump(), choose_device(settings.device).type, base.dtype]
    said = [settings.provenance.model_dump(), model_name(settings)]
    return digest([folder_digest(bundle), weights, code_digest([draw.__name__]), how, said])


def key(order: Order, crops: Sequence[Crop], made: str) -> str:
    """Of everything that decides a picture: what it is drawn beside is no part of it, nor where it goes."""
    said = [order.prompt, order.negative, order.seed, order.strengths, order.regions, order.how]
    return digest([made, said, [crop.sha256 for crop in crops]])


def without_known(tasks: Sequence[Task], out: Path) -> list[Task]:
    """The tasks whose picture does not lie in `out`, whole, from an earlier run."""
    known = table.noted(out)
    for note in (out / UNFINISHED / "notes").glob("*.json"):
        known |= {(name, file): sha for name, file, sha in json.loads(note.read_text(encoding="utf-8"))}

    def there(task: Task) -> bool:
        path, sha = out / task.order.file, known.get((task.key, task.order.file))
        return sha is not None and path.is_file() and file_sha256(path) == sha

    return [task for task in tasks if not there(task)]


def draw_missing(missing: Sequence[Task], settings: Params, bundle: Path, out: Path) -> list[Refused]:
    """Draw them shard by shard; the rows that this model cannot draw."""
    text, work = json.dumps(settings.resolved()), out / UNFINISHED
    when = begun(work)
    jobs = [
        Shard(tuple(some), text, bundle, out, work / "notes" / f"{digest([one.key for one in some])}.json", when)
        for some in shards(missing, settings.jobs.batch, settings.workers.count)
    ]
    unfit: list[Refused] = []
    with tqdm(total=len(missing), desc="pictures", mininterval=1, delay=1) as bar:
        for job, refused in zip(jobs, shared_out(jobs, settings), strict=True):
            unfit += [Refused(row, reason) for row, reason in refused.items()]
            bar.update(len(job.tasks))
    return unfit


def begun(work: Path) -> datetime:
    """When drawing into the folder began: all its pictures say that time, also those drawn after it was killed."""
    path = work / "begun.json"
    if not path.exists():
        write_json(path, clock().isoformat())
    return datetime.fromisoformat(json.loads(path.read_text(encoding="utf-8")))


def export_sheets(settings: Params, bundle: Path) -> table.Export:
    """Makes the PNGs of contact sheets: marked as the pictures are, without a time, so that they repeat."""
    marker = open_marker(settings.provenance, lambda: Terms.of(settings).drawer(bundle), settings.device)
    return lambda image: marker.png(image, said_time(), source=COMPOSED)


def shared_out(jobs: Sequence[Shard], settings: Params) -> Iterator[dict[int, str]]:
    """A GPU is one worker's alone, and here there is one: processes would only be in each other's way."""
    if settings.workers.map == "ray":
        return workers.on_ray(draw.draw_shard, jobs, settings.workers, chunk=1, cpus=settings.jobs.threads, gpu=True)
    if choose_device(settings.device).type == "cuda":
        return map(draw.draw_shard, jobs)
    return workers.each(draw.draw_shard, jobs, settings.workers, chunk=1, alone=1)


def shards(tasks: Sequence[Task], batch: int, count: int) -> Iterator[list[Task]]:
    """Tasks of the same options together, those of one prompt, and of prompts of one length, beside each other; small
    enough for `count` workers."""
    groups: dict[object, list[Task]] = {}
    for task in tasks:
        groups.setdefault(task.order.how, []).append(task)
    for group in groups.values():
        group.sort(key=alike)
        batches = -(-len(group) // batch)
        size = batch * max(1, min(AT_A_TIME, batches // (2 * count)))
        for start in range(0, len(group), size):
            yield group[start : start + size]


def alike(task: Task) -> tuple[int, str, str, str]:
    prompt, negative = task.order.prompt, task.order.negative or ""
    return max(len(prompt.encode()), len(negative.encode())), prompt, negative, task.key


def tell(refused: Sequence[Refused]) -> None:
    for one in refused[:TOLD]:
        log.warning("%s", one.told())
    if (more := len(refused) - TOLD) > 0:
        log.warning("and %d more rows: %s says why", more, table.NAME)
