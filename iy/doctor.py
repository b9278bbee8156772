"""`iy doctor`: what is here, what is missing, what to do about it. Looks only; starts and fetches nothing."""

import importlib.metadata
import json
import os
import platform
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from iy import params, project, tracking
from iy.device import gpu_name
from iy.errors import UserError

PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "accelerate",
    "peft",
    "onnxruntime",
    "dvc",
    "mlflow",
    "prefect",
    "fastapi",
)
MEMORY_GB, DISK_GB = 6, 5  # what a run of the studio profile was seen to need, rounded up


class Finding(NamedTuple):
    """`state`: ok, note (works without) or missing (needed). `remedy` is empty when ok."""

    state: str
    what: str
    detail: str
    remedy: str = ""


def examine() -> list[Finding]:
    return [*machine(), *packages(), *settings(), *face_models(), *marks(), *tools(), *services()]


def machine() -> Iterator[Finding]:
    import psutil

    version = platform.python_version()
    yield Finding("ok" if sys.version_info >= (3, 11) else "missing", "Python", version, "install Python 3.11 or newer")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("ok", "CPU", f"{cores} cores, {platform.machine()}")
    memory = psutil.virtual_memory()
    yield Finding(
        "ok" if memory.available >= MEMORY_GB * 1e9 else "note",
        "memory",
        f"{memory.available / 1e9:.0f} of {memory.total / 1e9:.0f} GB free",
        f"close programs: a run wants {MEMORY_GB} GB",
    )
    free = shutil.disk_usage(".").free
    yield Finding(
        "ok" if free >= DISK_GB * 1e9 else "missing",
        "disk",
        f"{free / 1e9:.0f} GB free here",
        f"free {DISK_GB} GB: `dvc gc --workspace` deletes cached results of older runs",
    )
    try:
        found = gpu_name()
    except (ImportError, RuntimeError):
        found = None
    yield Finding(
        "ok" if found else "note",
        "GPU",
        found or "none",
        "the studio does without; the sdxl profile needs one and torch's CUDA build",
    )


def packages() -> Iterator[Finding]:
    for name in PACKAGES:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding("missing", name, "not installed", "make install")
            continue
        pinned = pins().get(name)
        right = pinned in (None, version.split("+")[0])
        yield Finding(
            "ok" if right else "note", name, version + ("" if right else f" (tested: {pinned})"), "make install"
        )


def pins() -> dict[str, str]:
    """Tested versions from constraints.txt; empty away from the project."""
    try:
        lines = Path("constraints.txt").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return dict(line.split("==", 1) for line in lines if "==" in line and not line.startswith("#"))


def settings() -> Iterator[Finding]:
    """The settings are valid and the local weights that they name are there."""
    try:
        found = params.load()
    except UserError as error:
        yield Finding("missing", "settings", str(error), "mend what it names, in the project folder")
        return
    yield Finding("ok", "settings", f"profile {found.profile}, {found.digest()[:12]}")
    parts = found.base.parts().values()
    named = [*dict.fromkeys(part.path for part in parts), found.finetune.pretrained, found.evaluate.probes]
    for path in filter(None, named):
        if Path(path).exists():
            yield Finding("ok", "weights", path)
        elif path.startswith(("weights/", "/", ".")):
            yield Finding(
                "missing", "weights", f"{path} is not here", "they come with the repository: `git checkout -- weights`"
            )
        elif path.startswith("s3://"):
            yield Finding(
                "note", "weights", f"{path} is in S3", "fetched at first use; needs keys where boto3 finds them"
            )
        else:
            yield Finding(
                "note", "weights", f"{path} is a hub name", "fetched at first use; needs the network and space"
            )


def face_models() -> Iterator[Finding]:
    try:
        from iy.faces.weights import COMMAND, WEIGHTS, present
    except ImportError as error:
        yield Finding("missing", "face models", str(error), "make install")
        return
    for name, weights in WEIGHTS.items():
        here = present(name)
        yield Finding(
            "ok" if here else "missing", f"face model {name}", weights.licence if here else "absent or damaged", COMMAND
        )


def marks() -> Iterator[Finding]:
    """How drawn pictures leave: signed by whom, and watermarked or why not."""
    try:
        from iy.provenance import keys, watermark

        said = params.load().provenance
    except (ImportError, UserError):
        return  # told above
    if not said.mark:
        yield Finding("note", "signature", "none: provenance.mark is false", "docs/provenance.md says what that means")
        return
    if said.certificate is None and said.key is None:
        detail = f"self-signed, {keys.own_file()}" + ("" if keys.own_file().exists() else " (made at first use)")
        yield Finding("note", "signature", detail, "name provenance.certificate and key if others shall trust it")
    else:
        try:
            keys.signatory(said)
            yield Finding("ok", "signature", f"by {said.certificate}")
        except UserError as error:
            yield Finding("missing", "signature", str(error), "mend provenance.certificate and key")
    reason = watermark.why_not(said)
    yield Finding(
        "note" if reason else "ok", "watermark", reason or "trustmark", "docs/provenance.md says what it adds"
    )


def tools() -> Iterator[Finding]:
    for name, state, why in (
        ("git", "missing", "install git: results carry their commit"),
        ("npm", "note", "install Node.js if a face model above is missing: two come from npm"),
        ("chromium", "note", "only the browser tests use it: apt-get install chromium"),
    ):
        place = shutil.which(name) or (shutil.which("google-chrome") if name == "chromium" else None)
        yield Finding("ok" if place else state, name, place or "not found", why)


def services() -> Iterator[Finding]:
    """MLflow and Prefect servers, if any were named or started by `iy ui`; without them local ones are used."""
    started = {}
    try:
        started = json.loads((project.state() / "ui.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        pass
    prefect = os.environ.get("PREFECT_API_URL") or (started.get("prefect", "") and started["prefect"] + "/api")
    mlflow = os.environ.get("MLFLOW_TRACKING_URI") or started.get("mlflow", "")
    for name, url, variable in (("Prefect", prefect, "PREFECT_API_URL"), ("MLflow", mlflow, "MLFLOW_TRACKING_URI")):
        if name == "MLflow" and not url and (wrong := tracking.fault()):
            yield Finding("missing", name, wrong, "as it says")
        elif not url.startswith("http"):
            yield Finding("ok", name, f"no server ({url or 'local store under .iy'}); `iy ui` starts one")
        elif answers(url.rstrip("/") + "/health"):
            yield Finding("ok", name, without_login(url))
        elif os.environ.get(variable):
            yield Finding(
                "missing", name, f"{without_login(url)} does not answer", f"start it (`iy ui`), or unset {variable}"
            )
        else:
            yield Finding("note", name, f"{without_login(url)} has stopped", "`iy ui` starts it again")


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=3) as response:
            return response.status == 200
    except (OSError, ValueError, urllib.error.URLError):
        return False


def without_login(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def show(findings: list[Finding]) -> int:
    """Print a table; 1 when something needed is missing, else 0."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "what", "found", "what to do"):
        table.add_column(column, overflow="fold")
    marks = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "missing": "[red]MISSING[/]"}
    for found in findings:
        table.add_row(marks[found.state], found.what, found.detail, "" if found.state == "ok" else found.remedy)
    console = Console()
    console.print(table)
    missing = sum(found.state == "missing" for found in findings)
    console.print(f"{missing} needed thing(s) missing" if missing else "Everything needed is here.")
    return int(missing > 0)
