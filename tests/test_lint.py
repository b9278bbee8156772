"""One lint, run wherever code is taken in: before the tests, in continuous integration, with every commit."""

import re
import subprocess
import tomllib
from pathlib import Path

import yaml

from tests.sources import sources


def commands(*goals: str) -> str:
    """What make would run, as if everything were installed."""
    # Called by `make test` itself, make would also tell which folder it enters and leaves.
    made = ["make", "--no-print-directory", "--dry-run", "--old-file", ".venv/.installed", *goals]
    return subprocess.run(made, capture_output=True, text=True, check=True).stdout


def test_make_lint_checks_style_layout_and_types_and_make_test_begins_with_it():
    lint = commands("lint").splitlines()
    assert lint == ["ruff check .", "ruff format --check .", "basedpyright"]
    assert commands("test").splitlines()[:3] == lint
    assert commands("lint", "test").count("basedpyright") == 1, "once, where both are asked for"


def test_continuous_integration_and_every_commit_run_that_lint():
    assert Path(".ci/run").read_text().splitlines()[-1] == "exec make lint test"
    [repository] = yaml.safe_load(Path(".pre-commit-config.yaml").read_text())["repos"]
    [hook] = repository["hooks"]
    assert repository["repo"] == "local", "nothing is fetched"
    assert hook["entry"] == "make lint" and hook["pass_filenames"] is False


def test_the_type_checker_sees_all_that_runs_and_no_rule_is_off():
    checks = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["basedpyright"]
    assert checks["typeCheckingMode"] == "basic" and set(checks["include"]) == {"iy", "flows"}
    rules = {name: value for name, value in checks.items() if name.startswith("report")}
    assert set(rules.values()) == {"error"}, f"the preset's rules stay on: {rules}"
    assert not {"exclude", "ignore", "baselineFile"} & set(checks) and not Path(".basedpyright").exists()


def test_what_is_ignored_on_a_line_is_named_with_a_reason():
    for path in sources("iy", "flows", "infra", "foundation", "tests"):
        for line in path.read_text(encoding="utf-8").splitlines():
            for kind, rest in re.findall(r"#\s*(noqa|type: ignore|pyright: ignore|pyright:)(.*)", line):
                assert kind in ("noqa", "pyright: ignore"), f"{path}: {line.strip()}"
                assert re.match(r"(: [A-Z]+\d+|\[\w+\])( \(.{5,}\)|  # .{5,})", rest), (
                    f"{path}: rule and reason: {line.strip()}"
                )
