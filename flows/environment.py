"""Where the tools of a run keep their things: under the main checkout's `.iy/`, telemetry off, this Python first."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from iy.errors import UserError
from iy.process import QUIET


def main_root(folder: Path | str = ".") -> Path:
    """The main checkout of `folder`'s repository: the same for every worktree, `folder` itself without git."""
    command = ["git", "-C", str(folder), "rev-parse", "--path-format=absolute", "--git-common-dir", "--show-prefix"]
    found = subprocess.run(command, capture_output=True, text=True)
    if found.returncode:
        return Path(folder).resolve()
    common, prefix = (found.stdout + "\n").split("\n")[:2]
    return Path(common).resolve().parent / prefix


def prepare() -> None:
    """Set what Prefect, DVC, MLflow and the stages read from the environment, keeping what the user has set."""
    root = main_root()
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    home = Path(os.environ.setdefault("PREFECT_HOME", str(root / ".iy" / "prefect")))
    try:
        home.mkdir(parents=True, exist_ok=True)  # Prefect makes the last folder only, and fails without the one above
    except OSError as error:
        raise UserError(
            f"Prefect's folder {home} cannot be made ({error.strerror}): set PREFECT_HOME to another"
        ) from None
    os.environ.setdefault(
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180"
    )  # the first start takes 20 s, busy machines longer
    os.environ.setdefault("PREFECT_CLI_PROMPT", "false")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    put_first("PATH", str(Path(sys.executable).parent))  # `python` in dvc.yaml is this one
    put_first("PYTHONPATH", str(Path.cwd()))  # and its modules are this folder's
    if "PREFECT_API_URL" not in os.environ and (services := running(root)):
        os.environ["PREFECT_API_URL"] = services["prefect"] + "/api"


def put_first(variable: str, folder: str) -> None:
    others = [part for part in os.environ.get(variable, "").split(os.pathsep) if part and part != folder]
    os.environ[variable] = os.pathsep.join([folder, *others])


def services_file(root: Path) -> Path:
    return root / ".iy" / "ui.json"


def running(root: Path) -> dict[str, str] | None:
    """The addresses (`prefect`, `mlflow`, `reports`) of the services that `make ui` started and that still answer."""
    try:
        services = json.loads(services_file(root).read_text())
        with urllib.request.urlopen(services["prefect"] + "/api/health", timeout=2) as answer:
            return services if answer.status == 200 else None
    except (OSError, ValueError, KeyError, urllib.error.URLError):
        return None
