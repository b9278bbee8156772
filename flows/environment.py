"""Where the tools of a run keep their things: under the project's `.iy/`, telemetry off, this Python first."""

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

from iy import project
from iy.errors import UserError
from iy.process import set_environment

OWN = "IY_OWN_PREFECT"  # the address of a Prefect server that is this project's alone


def prepare() -> None:
    """Set what Prefect, DVC, MLflow and the stages read from the environment, keeping what the user has set."""
    set_environment()
    home = Path(os.environ.setdefault("PREFECT_HOME", str(project.state() / "prefect")))
    try:
        home.mkdir(parents=True, exist_ok=True)  # Prefect makes the last folder only, and fails without the one above
    except OSError as error:
        raise UserError(
            f"Prefect's folder {home} cannot be made ({error.strerror}): set PREFECT_HOME to another"
        ) from None
    os.environ.setdefault("PREFECT_CLI_PROMPT", "false")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    put_first("PATH", str(Path(sys.executable).parent))  # `python` in dvc.yaml is this one
    put_first("PYTHONPATH", str(Path.cwd()))  # and its modules are this folder's
    if "PREFECT_API_URL" not in os.environ and (services := running()):
        os.environ.update(own_server(services["prefect"] + "/api"))


def own_server(api: str) -> dict[str, str]:
    """The environment in which this project's own Prefect server is used: `make ui`'s or a run's temporary one."""
    return {"PREFECT_API_URL": api, OWN: api}


def shared_server() -> bool:
    """Whether runs go to a server that the user named, which other projects and machines may use too."""
    return os.environ.get("PREFECT_API_URL") not in (None, os.environ.get(OWN))


def put_first(variable: str, folder: str) -> None:
    others = [part for part in os.environ.get(variable, "").split(os.pathsep) if part and part != folder]
    os.environ[variable] = os.pathsep.join([folder, *others])


def services_file() -> Path:
    return project.state() / "ui.json"


def running() -> dict[str, str] | None:
    """The addresses (`prefect`, `mlflow`, `reports`) of the services that `make ui` started and that still answer."""
    try:
        services = json.loads(services_file().read_text())
        with urllib.request.urlopen(services["prefect"] + "/api/health", timeout=2) as answer:
            return services if answer.status == 200 else None
    except (OSError, ValueError, KeyError, urllib.error.URLError):
        return None
