"""Imports point one way, read from the source with `ast`."""

from pathlib import Path

import pytest

from tests.sources import OURS, circles, files_imported, imported, sources

LEVELS = [
    {"errors"},
    {"storage", "s3", "pictures"},
    {"git"},
    {"project"},
    {
        "params",
        "records",
        "lexicon",
        "metrics",
        "erased",
        "device",
        "seeds",
        "imports",
        "process",
        "names",
        "rights",
        "web",
    },
    {"resume", "workers", "report", "spreadsheet", "studio", "provenance", "overrides"},
    {"diffusion", "tracking"},
    {"model", "faces", "stage"},
    {"policy"},
    {"generate"},
    {"photos", "curate", "synpairs", "select", "finetune", "evaluate", "register"},
    {"shapes"},
    {"doctor", "bench", "review", "transfer", "erasure", "jobs", "play", "rehearse", "plan"},
    {"cli"},
]
RANK = {name: rank for rank, names in enumerate(LEVELS) for name in names}
ROOMS = next(names for names in LEVELS if "photos" in names)
STUDIO_USERS = {"studio", "photos", "cli"}


def place_of(path: Path) -> str:
    """`iy/model/bundle.py` is in `model`."""
    return path.relative_to("iy").with_suffix("").parts[0]


def rooms_of(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("iy.") and name.split(".")[1] in RANK}


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


def packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


@pytest.mark.parametrize("path", sources("iy"), ids=str)
def test_iy_stands_below_flows_and_foundation(path):
    assert "prefect" not in packages(path), f"{path}: prefect belongs in flows/"
    assert "foundation" not in packages(path), f"{path}: how the shipped weights were made is no part of what ships"
    assert "flows" not in packages(path) or path == Path("iy/cli.py"), f"{path}: only the command line starts flows"


@pytest.mark.parametrize("path", sources("flows", "infra"), ids=str)
def test_flows_and_infra_need_no_foundation(path):
    assert "foundation" not in packages(path), f"{path}: how the shipped weights were made is no part of what runs"


@pytest.mark.parametrize("path", sources("foundation"), ids=str)
def test_the_foundation_needs_iy_alone(path):
    assert not packages(path) & {"flows", "infra", "prefect", "mlflow"}


def test_no_two_files_import_each_other():
    """Nor by way of others: so there is an order in which the files can be read, each after what it needs."""
    found = circles({path: files_imported(path) for path in sources(*OURS)})
    assert not found, "\n".join(" <-> ".join(map(str, circle)) for circle in found)


def test_circles_are_seen_wherever_the_imports_stand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "iy/__init__.py": "",
        "iy/a.py": "from iy import b",
        "iy/b.py": "def f():\n    import iy.c",
        "iy/c.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from iy.a import A",
        "iy/d.py": "from iy import a\nimport os",
        "flows/__init__.py": "from flows.e import E",
        "flows/e.py": "from flows import E, os",
    }.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text + "\n")
    found = circles({path: files_imported(path) for path in sources("iy", "flows")})
    assert found == [[Path("flows/__init__.py"), Path("flows/e.py")], [Path(f"iy/{name}.py") for name in "abc"]]


@pytest.mark.parametrize("path", sources("iy", "flows"), ids=str)
def test_no_pickle(path):
    assert not imported(path) & {"pickle", "joblib", "dill", "cloudpickle"}


@pytest.mark.parametrize("path", sources("tests"), ids=str)
def test_tests_share_through_helpers_never_through_each_other(path):
    """A file that another test imports runs twice under two names; a helper has one name, `tests.helper`."""
    helpers = {one.stem for one in sources("tests")}
    names = imported(path)
    assert not {name for name in names if name.startswith("tests.test_")}, "move what is shared to a helper"
    assert not {name.split(".")[0] for name in names} & helpers, "write `from tests import helper`"
