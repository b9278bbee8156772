"""Where runs are kept: one MLflow store per project, shared by its worktrees, or the server in MLFLOW_TRACKING_URI."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from iy.project import root as project_root
from iy.stage import set_environment

if TYPE_CHECKING:
    from mlflow import MlflowClient


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI when it is set, else `sqlite:///<project root>/.iy/mlflow.db`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{project_root() / '.iy' / 'mlflow.db'}"


def connect() -> "MlflowClient":
    """A client of the store; a local one is made at first use."""
    set_environment()
    # MLflow's own patience with a dead server is many minutes per call; training must not stand still that long.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    from mlflow import MlflowClient

    uri = tracking_uri()
    with alone():
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
    return client


def experiment_id(client: "MlflowClient", name: str) -> str:
    """The experiment's id, made when new; a local store keeps pictures in `.iy/mlartifacts` of the project."""
    with alone():
        found = client.get_experiment_by_name(name)
        if found is not None:
            return found.experiment_id
        local = None if os.environ.get("MLFLOW_TRACKING_URI") else project_root() / ".iy" / "mlartifacts" / name
        return client.create_experiment(name, artifact_location=local and local.as_uri())


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Only one process of this project at a time: two that make the same database at once would break it."""
    folder = project_root() / ".iy"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "mlflow.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
