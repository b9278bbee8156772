"""One stage's run: metrics in batches, pictures by step, data sets, settings. Tracking never stops the work it tracks.

A parent run stands for a pipeline: the environment variable IY_PIPELINE, else the git commit and the settings' hash.
A stage that was interrupted and starts again continues its own child run.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from iy import git
from iy.errors import UserError, one_line
from iy.params import Params
from iy.tracking import store
from iy.tracking.describe import dataset_input, flatten

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Tell = Callable[[dict[str, float], int], None]  # figures at a step, as `StageRun.log_metrics` takes them
log = logging.getLogger(__name__)

BATCH, SECONDS = 500, 5.0  # metrics are sent when this many wait, or this long after the last time
RETRY = 60.0  # seconds between attempts while the store does not answer
UNFINISHED = ("FAILED", "KILLED", "RUNNING")


class StageRun:
    """Handle of a stage's run. Every method returns at once when the store cannot be reached, with one warning.

    client: None where nothing is kept, and `why`.
    """

    def __init__(self, client: "MlflowClient | None", run_id: str | None, why: str = "") -> None:
        self.client, self.run_id, self.why = client, run_id, why
        self.waiting: list = []
        self.sent = time.monotonic()
        self.broken_since: float | None = None

    def log_metrics(self, values: dict[str, float], step: int = 0) -> None:
        """Numbers by name at `step`; sent in batches."""
        if self.client is None:
            return
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        self.waiting += [Metric(name, float(value), now, step) for name, value in values.items()]
        if len(self.waiting) >= BATCH or time.monotonic() - self.sent > SECONDS:
            self.flush()

    def log_curve(self, name: str, points: Iterable[tuple[int, float]]) -> None:
        """A whole curve at once: (step, value)."""
        for step, value in points:
            self.log_metrics({name: value}, step)

    def log_image(self, key: str, step: int, image: np.ndarray) -> None:
        """A picture, uint8 (H, W, 3), in the series `key` at `step`."""
        from PIL import Image

        picture = Image.fromarray(np.asarray(image))
        self.attempt(lambda client, run: client.log_image(run, picture, key=key, step=step, synchronous=True))

    log_images = log_image

    def log_dataset(self, name: str, path: Path | str) -> None:
        """A file that the stage reads, by its content's hash."""
        self.attempt(lambda client, run: client.log_inputs(run, [dataset_input(name, path)]))

    def log_artifact(self, path: Path | str, folder: str | None = None) -> None:
        """A file or a whole folder, copied to the run (under `folder`)."""
        path = str(path)
        send = "log_artifacts" if os.path.isdir(path) else "log_artifact"
        self.attempt(lambda client, run: getattr(client, send)(run, path, folder))

    def set_tags(self, tags: dict[str, str]) -> None:
        for key, value in tags.items():
            self.attempt(lambda client, run, key=key, value=value: client.set_tag(run, key, value))

    def flush(self, at_end: bool = False) -> None:
        """Send what waits; what the store did not take is kept for the next time."""
        self.sent = time.monotonic()
        batch, rest = self.waiting[:1000], self.waiting[1000:]  # 1000: MLflow's limit for one request
        if batch and self.attempt(lambda client, run: client.log_batch(run, metrics=batch), at_end):
            self.waiting = rest
            if rest:
                self.flush(at_end)

    def attempt(self, send: "Callable[[MlflowClient, str], Any]", at_end: bool = False) -> bool:
        """Try to reach the store: `send` gets its client and this run's id.

        A failure is told once and then tried again at most every RETRY seconds.
        """
        now = time.monotonic()
        if self.client is None or self.run_id is None:
            return False
        if self.broken_since and now - self.broken_since < RETRY and not at_end:
            return False
        try:
            send(self.client, self.run_id)
        except Exception as error:  # whatever a store may raise, the work goes on
            if self.broken_since is None:
                log.warning("MLflow did not take this run's records (%s); the work goes on", one_line(error))
            self.broken_since = time.monotonic()
            return False
        self.broken_since = None
        return True


UNTRACKED = StageRun(
    None, None, "nothing tracks this run"
)  # keeps nothing: for a stage's work called from elsewhere than its process


@contextlib.contextmanager
def stage_run(settings: Params, stage: str) -> Iterator[StageRun]:
    """The child run of `stage` under its pipeline's parent: FINISHED, FAILED or (interrupted) KILLED at the end."""
    run, parent = start(settings, stage)
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        run.flush(at_end=True)
        for run_id in filter(None, (run.run_id, parent)):
            run.attempt(lambda client, _, run_id=run_id: client.set_terminated(run_id, status), at_end=True)


def pipeline_key(settings: Params) -> str:
    """What the stages of one pipeline share: IY_PIPELINE, else commit and settings."""
    commit = git.commit() or "no-git"
    return os.environ.get("IY_PIPELINE") or f"{commit[:12]}-{settings.digest()[:12]}"


def start(settings: Params, stage: str) -> tuple[StageRun, str | None]:
    """The stage's run and its parent's id; a handle that does nothing when the store cannot be opened.

    What only the user can mend in the project's own store is a `UserError`, now rather than after the long work.
    """
    try:
        client = store.connect()
        experiment = store.experiment_id(client, settings.profile)
        own = {"iy.pipeline": pipeline_key(settings), "iy.kind": "pipeline"}
        parent = find_or_create(client, experiment, settings, "pipeline", own, (*UNFINISHED, "FINISHED"))
        own |= {"iy.kind": "stage", "iy.stage": stage, "iy.settings": settings.digest(), "mlflow.parentRunId": parent}
        child = find_or_create(client, experiment, settings, stage, own, UNFINISHED)
    except UserError:
        raise
    except Exception as error:  # see StageRun.attempt
        log.warning("MLflow at %s cannot be used (%s): this run is not tracked", store.tracking_uri(), one_line(error))
        return StageRun(None, None, one_line(error)), None
    log.info("MLflow run %s of experiment iy-%s in %s", child, settings.profile, store.tracking_uri())
    return StageRun(client, child), parent


def find_or_create(
    client: "MlflowClient",
    experiment: str,
    settings: Params,
    name: str,
    tags: dict[str, str],
    statuses: tuple[str, ...],
) -> str:
    """Id of the newest run with these tags, set running again, if its status is one of these; else of a new one."""
    wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    found: list[Run] = client.search_runs([experiment], wanted, max_results=1, order_by=["attributes.start_time DESC"])
    if found and found[0].info.status in statuses:
        client.update_run(found[0].info.run_id, status="RUNNING")
        return found[0].info.run_id
    commit = git.commit()
    more = {
        "mlflow.source.git.commit": commit,
        "mlflow.source.name": f"iy.{name}",
        "iy.profile": settings.profile,
        "iy.settings": settings.digest(),
    }
    tags = tags | {key: value for key, value in more.items() if value}
    run_id = client.create_run(experiment, tags=tags, run_name=name).info.run_id
    log_settings(client, run_id, settings)
    return run_id


def log_settings(client: "MlflowClient", run_id: str, settings: Params) -> None:
    from mlflow.entities import Param

    flat = [Param(key, value) for key, value in {**flatten(settings.resolved()), "sha256": settings.digest()}.items()]
    for first in range(0, len(flat), 100):  # 100: MLflow's limit for one request
        client.log_batch(run_id, params=flat[first : first + 100])
