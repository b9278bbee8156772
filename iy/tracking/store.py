"""Where runs are kept: one MLflow store per project, shared by its worktrees, or the server in MLFLOW_TRACKING_URI."""

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from iy.errors import UserError
from iy.process import set_environment
from iy.project import root as project_root
from iy.tracking import local

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)


def own_database() -> Path | None:
    """The project's own store; None where MLFLOW_TRACKING_URI names another."""
    return None if os.environ.get("MLFLOW_TRACKING_URI") else project_root() / ".iy" / "mlflow.db"


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI when it is set, else `sqlite:///<project root>/.iy/mlflow.db`."""
    own = own_database()
    return local.address(own) if own else os.environ["MLFLOW_TRACKING_URI"]


def fault() -> str | None:
    """What is wrong with the project's own store, in one sentence; None where nothing is, or another is used."""
    own = own_database()
    return own and local.fault(own)


def connect() -> "MlflowClient":
    """A client of the store; a local one is made at first use, and follows its project to another folder."""
    set_environment()
    # MLflow's own patience with a dead server is many minutes per call; training must not stand still that long.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    from mlflow import MlflowClient

    uri, own = tracking_uri(), own_database()
    with alone():
        if own is not None and own.is_file():
            local.follow(own, project_root())
        try:
            if own is not None:
                local.make(own)
            client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            client.search_experiments(max_results=1)
        except Exception:  # of many kinds
            if own is not None and (why := local.fault(own)):
                raise UserError(why) from None
            raise
    return client


KIND = {"mlflow.experimentKind": "custom_model_development"}  # else MLflow's pages open it as one of prompts and traces


def experiment_id(client: "MlflowClient", profile: str) -> str:
    """The id of the profile's experiment, made when new; a local store keeps pictures under `.iy/mlartifacts`.

    One that was deleted in MLflow's page is restored: its name is taken, and no run can be made in it.
    """
    name = f"iy-{profile}"
    with alone():
        found = client.get_experiment_by_name(name)
        if found is not None:
            if found.lifecycle_stage == "deleted":
                client.restore_experiment(found.experiment_id)
                log.warning("MLflow's experiment %s had been deleted: it is restored, with its runs", name)
            return found.experiment_id
        own = own_database()
        place = own and (project_root() / local.ARTIFACTS / name).as_uri()
        return client.create_experiment(name, artifact_location=place, tags=KIND)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Only one process of this project at a time: two that make the same database at once would break it."""
    folder = project_root() / ".iy"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "mlflow.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
