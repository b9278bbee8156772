"""Imports point one way, read from the source with `ast`."""

import ast
from pathlib import Path

import pytest

LEVELS = [
    {"errors"},
    {"storage", "s3"},
    {"git"},
    {"project"},
    {"params", "records", "lexicon", "erased"},
    {"stage", "workers", "report", "studio"},
    {"diffusion", "tracking"},
    {"model", "faces"},
    {"generate"},
    {"photos", "curate", "synpairs", "select", "finetune", "evaluate", "register"},
    {"doctor", "bench", "review", "transfer", "erasure"},
    {"cli"},
]
RANK = {name: rank for rank, names in enumerate(LEVELS) for name in names}
ROOMS = LEVELS[9]
STUDIO_USERS = {"studio", "photos", "cli"}


def imported(path: Path) -> set[str]:
    """Absolute dotted names that a file imports anywhere, functions included; `from a import b` gives a and a.b."""
    package = path.with_suffix("").parts[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            base = ".".join(part for part in (above, node.module) if part)
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return names


def place_of(path: Path) -> str:
    """`iy/model/bundle.py` is in `model`."""
    return path.relative_to("iy").with_suffix("").parts[0]


def rooms_of(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("iy.") and name.split(".")[1] in RANK}


def sources(folder: str) -> list[Path]:
    return sorted(Path(folder).rglob("*.py"))


def test_the_reader_sees_every_kind_of_import(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("iy/model").mkdir(parents=True)
    file = Path("iy/model/bundle.py")
    file.write_text(
        "import iy.params\nfrom iy import storage as s\nfrom . import attention\nfrom ..faces import crop\n"
        "def f():\n    from iy.records import read\n"
    )
    assert rooms_of(imported(file)) == {"params", "storage", "model", "faces", "records"}


def test_every_module_has_a_place():
    found = {place_of(path) for path in sources("iy")} - {"__init__", "__main__"}
    assert found <= set(RANK), f"name these in LEVELS: {sorted(found - set(RANK))}"


@pytest.mark.parametrize("path", sources("iy"), ids=str)
def test_imports_point_down(path):
    own = place_of(path)
    if own in ("__init__", "__main__"):
        assert not rooms_of(imported(path)) - {"cli"}
        return
    for other in rooms_of(imported(path)) - {own}:
        assert RANK[other] <= RANK[own], f"{path} imports iy.{other}, which stands above it"
        assert not (own in ROOMS and other in ROOMS), f"{path}: rooms meet on disk, never by importing iy.{other}"
        assert other != "studio" or own in STUDIO_USERS, f"{path}: the studio is for photos"


@pytest.mark.parametrize("path", [*sources("iy")], ids=str)
def test_prefect_stays_in_flows(path):
    names = {name.split(".")[0] for name in imported(path)}
    assert "prefect" not in names, f"{path}: prefect belongs in flows/"
    assert "foundation" not in names, f"{path}: how the shipped weights were made is no part of what ships"
    assert "flows" not in names or path == Path("iy/cli.py"), f"{path}: only the command line starts flows"


@pytest.mark.parametrize("path", [*sources("iy"), *sources("flows")], ids=str)
def test_no_pickle(path):
    assert not imported(path) & {"pickle", "joblib", "dill", "cloudpickle"}
