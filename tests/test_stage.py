"""The one door of every stage: one line for what the user can mend, however early it comes."""

import os
import signal
import subprocess
import sys

import pytest

COMMANDS = [
    *([stage] for stage in ("photos", "curate", "synpairs", "select", "evaluate", "register")),
    ["finetune", "--stage", "1"],
]


def environment(root) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW", "IY_"))}
    return kept | {"PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1"}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_ctrl_c_during_the_imports_is_one_line(command, root, project):
    """Python tells every module that it has imported: the signal comes after the first of the heavy ones."""
    stage, *options = command
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", f"iy.{stage}", *options],
        cwd=project,
        env=environment(root),
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.split("|")[-1].strip() == "pydantic":
            process.send_signal(signal.SIGINT)
            break
    lines += process.stderr
    said = [line.strip() for line in lines if not line.startswith("import time:")]
    assert process.wait(60) == 1
    assert said == ["interrupted: run the same command again to continue"]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_mistake_in_the_settings_is_one_line(command, root, project):
    (project / "params.yaml").write_text("profile: nobody\n")
    stage, *options = command
    done = subprocess.run(
        [sys.executable, "-m", f"iy.{stage}", *options],
        cwd=project,
        env=environment(root),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and done.stderr.startswith("error: profiles/nobody.yaml does not exist")
    assert len(done.stderr.splitlines()) == 1


def test_a_stage_that_must_be_told_which_says_so(root, project):
    done = subprocess.run(
        [sys.executable, "-m", "iy.finetune"], cwd=project, env=environment(root), capture_output=True, text=True
    )
    assert done.returncode == 2 and "--stage" in done.stderr
