"""A project of four quick stages with the real settings, DVC and git: what flows/ needs, without the models."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
MORE: dict[str, str] = {}  # more environment for all that run() starts, for example a server's address

STAGE = """
import os, pathlib, signal, sys, time
from iy import params, stage
from iy.errors import UserError
from iy.storage import write_json

name = sys.argv.pop()

def run(params):
    steps = params.finetune.stages["1"].steps if name == "finetune1" else 2
    pathlib.Path(".iy/toy.pid").write_text(str(os.getpid()))
    if params.seed == 13 and name == "curate":
        raise UserError("photo 7 is unlucky: choose another seed")
    for step in range(1, steps + 1):
        print(f"{name} step {step}/{steps}", flush=True)
        time.sleep(0.1)
    out = {"seed": params.seed, "steps": steps, "pipeline": bool(os.environ.get("IY_PIPELINE"))}
    write_json(f"data/{params.profile}/{name}/out.json", out)
    if name == "evaluate":
        report = params.report_dir("evaluate")
        write_json(report / "metrics.json", {"base": {"identity": {"value": 0.25, "low": 0.125, "high": 0.5, "n": 9}}})
        (report / "index.html").write_text("<h1>toy</h1>")
        import numpy as np
        from iy.storage import png
        (report / "grid.png").write_bytes(png(np.full((8, 8, 3), 128, np.uint8)))

stage.attend(lambda: run(params.load()))
"""

GRAPH = {"photos": [], "curate": ["photos"], "finetune1": ["photos", "curate"], "evaluate": ["finetune1"]}
PARAMS = {"photos": ["photos"], "curate": ["seed"], "finetune1": ["finetune.stages.1"], "evaluate": ["evaluate"]}


def dvc_yaml() -> str:
    text = "stages:\n"
    for name, needs in GRAPH.items():
        text += f"  {name}:\n    cmd: python toy_stage.py {name}\n    deps:\n      - toy_stage.py\n"
        text += "".join(f"      - data/${{profile}}/{need}\n" for need in needs)
        text += "    params:\n      - profiles/${profile}.yaml:\n" + "".join(
            f"          - {one}\n" for one in PARAMS[name]
        )
        text += f"    outs:\n      - data/${{profile}}/{name}\n" + (
            "      - reports/${profile}/evaluate\n" if name == "evaluate" else ""
        )
    return text


def environment(folder: Path) -> dict[str, str]:
    """A clean environment in which `python -m flows...` run in `folder` finds this checkout's code."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT", "MLFLOW", "IY_", "DVC"))}
    return {
        **kept,
        "PYTHONPATH": str(HERE),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}",
        **MORE,
    }


def run(folder: Path, *command: str, check: bool = True, **options) -> subprocess.CompletedProcess:
    options = {"capture_output": True, "text": True, "env": environment(folder), "timeout": 600} | options
    done = subprocess.run(command, cwd=folder, **options)
    if check and done.returncode:
        raise AssertionError(f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def prefect_database() -> Path:
    """An empty database of Prefect as its migrations leave it, made once: they take seconds in each new project."""
    import prefect

    kept = HERE / ".iy" / "tests" / f"prefect-{prefect.__version__}.db"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as home:
            made = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"]
            subprocess.run(made, env={**environment(Path(home)), "PREFECT_HOME": home}, check=True, capture_output=True)
            os.replace(Path(home) / "prefect.db", kept)
    return kept


def make(folder: Path, steps: int = 3) -> Path:
    """A committed toy project in `folder`, whose training takes `steps` of 0.1 s."""
    folder.mkdir(parents=True)
    shutil.copytree(HERE / "profiles", folder / "profiles")
    (folder / "params.yaml").write_text("profile: studio\n")
    (folder / "toy_stage.py").write_text(STAGE)
    (folder / "dvc.yaml").write_text(dvc_yaml())
    (folder / ".gitignore").write_text("/.iy\n/data/\n/reports/\n__pycache__/\n")
    (folder / ".iy" / "prefect").mkdir(parents=True)
    shutil.copy(prefect_database(), folder / ".iy" / "prefect" / "prefect.db")
    for name in ("studio", "smoke"):
        path = folder / "profiles" / f"{name}.yaml"
        text = path.read_text()
        first = text.index('"1": {') + text[text.index('"1": {') :].index("steps: ") + 7
        last = first + text[first:].index(",")
        path.write_text(text[:first] + str(steps) + text[last:])
    run(folder, "git", "init", "-q", "-b", "main")
    run(folder, "git", "config", "user.email", "toy@example.org")
    run(folder, "git", "config", "user.name", "toy")
    run(folder, sys.executable, "-m", "dvc", "init", "-q")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "toy")
    return folder
