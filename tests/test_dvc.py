"""dvc.yaml names what each stage really reads: the code it imports and the settings it uses."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from iy import imports, params, resume

STAGES = yaml.safe_load((Path(__file__).parents[1] / "dvc.yaml").read_text())["stages"]
UNTRACKED_SETTINGS = {
    "profile",
    "device",
    "workers",
    "finetune.checkpoint_every",
    "finetune.prefetch",
    "finetune.store",
    "finetune.parallel",
}  # profile: in every path


def settings_of(stage: str) -> list[str]:
    [(_, names)] = STAGES[stage]["params"][0].items()
    return names


@pytest.mark.parametrize("stage", STAGES)
def test_code_deps_cover_what_the_stage_imports(stage):
    module = f"iy.{'finetune' if stage.startswith('finetune') else stage}.run"
    reached = {path.relative_to(imports.ROOT) for path in imports.reached([module])}
    assert len(reached) > 10, f"{STAGES[stage]['cmd']} needs {module}"
    deps = [Path(dep) for dep in STAGES[stage]["deps"]]
    missing = {str(path) for path in reached if not any(path == dep or dep in path.parents for dep in deps)}
    missing = {path for path in missing if path != "iy/__init__.py" and resume.decides(path)}
    assert not missing, f"add to the deps of {stage} in dvc.yaml: {sorted(missing)}"


@pytest.mark.parametrize("stage", STAGES)
def test_tracked_deps_exist(stage):
    absent = [dep for dep in STAGES[stage]["deps"] if dep.startswith(("iy/", "weights/")) and not Path(dep).exists()]
    assert not absent, f"{stage} depends on files that the project does not have: {absent}"


def test_every_setting_belongs_to_a_stage():
    def leaves(value, place=""):
        for key, inner in value.items():
            name = f"{place}.{key}".lstrip(".")
            yield from leaves(inner, name) if isinstance(inner, dict) and inner else [name]

    tracked = {name for stage in STAGES for name in settings_of(stage)}
    lost = [
        leaf
        for leaf in leaves(params.load("studio").resolved())
        if not any(leaf == name or leaf.startswith(f"{name}.") for name in tracked | UNTRACKED_SETTINGS)
    ]
    assert not lost, f"no stage reruns when these change: {lost}"


@pytest.mark.parametrize("profile", ["studio", "smoke", "sdxl"])
def test_tracked_settings_exist(profile):
    settings = params.load(profile).resolved()
    for stage in STAGES:
        for name in settings_of(stage):
            value = settings
            for part in name.split("."):
                assert part in value, f"{stage}: {profile} has no {name}"
                value = value[part]


def downstream(first: set[str]) -> set[str]:
    changed = set(first)
    while True:
        outs = {out for stage in changed for out in STAGES[stage]["outs"]}
        more = {
            stage
            for stage in STAGES
            if any(dep == out or dep.startswith(f"{out}/") for dep in STAGES[stage]["deps"] for out in outs)
        } | changed
        if more == changed:
            return changed
        changed = more


def test_a_stage_4_setting_reruns_stage_4_and_what_follows_only():
    direct = {stage for stage in STAGES for name in settings_of(stage) if "finetune.stages.4.steps".startswith(name)}
    assert downstream(direct) == {"finetune4", "evaluate", "register"}


def test_dvc_reads_the_graph():
    done = subprocess.run([sys.executable, "-m", "dvc", "stage", "list", "--name-only"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == list(STAGES)
