"""Registering with a real MLflow store and a tiny bundle: lineage, aliases, the gate, a model that draws."""

import base64
import io
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iy import params, records
from iy.errors import UserError
from iy.generate.portrait import Terms
from iy.generate.portrait import version as bundle_version
from iy.model.bundle import locate, read_config
from iy.play.models import bring, inside, registered
from iy.provenance.mark import Drawer
from iy.register import gate, run
from iy.storage import png, write_json, write_shard
from iy.tracking import UNTRACKED, stage_run
from tests.tiny import tiny_base, tiny_settings

REGISTER = params.Register(name="iy-test", metric="identity", alignment="clip_score", minimum_prompt_alignment=0.2)


def measured(identity, clip=0.3):
    return {
        name: {"value": value, "low": value - 0.05, "high": value + 0.05, "n": 9}
        for name, value in (("identity", identity), ("clip_score", clip))
    }


@pytest.mark.parametrize(
    "candidate, champion, verdict, says",
    [
        (measured(0.5), None, gate.PROMOTED, "first"),
        (measured(0.5, clip=0.19), None, gate.REFUSED, "minimum_prompt_alignment"),
        (measured(0.46), measured(0.5), gate.PROMOTED, "0.450"),
        (measured(0.44), measured(0.5), gate.REFUSED, "0.450"),
        (measured(0.5), {"clip_score": measured(0.5)["clip_score"]}, gate.REFUSED, "by hand"),
    ],
)
def test_gate(candidate, champion, verdict, says):
    found = gate.decide(candidate, champion, REGISTER)
    assert found.verdict == verdict and says in found.reason


def test_gate_names_what_was_measured():
    with pytest.raises(UserError, match="no 'identity'.*it has clip_score"):
        gate.decide({"clip_score": measured(0.5)["clip_score"]}, None, REGISTER)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project folder in which everything before `register` has run, with a random tiny model; and its settings."""
    import torch

    from iy.diffusion import load_base
    from iy.model import Personaliser, bundle

    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("project")
    value = tiny_settings(tiny_base(root / "base"))
    value["register"] = {**REGISTER.model_dump()}
    value["draw"]["steps"] = 2
    settings = params.parse(value, "test")
    base = load_base(settings.base, "cpu")
    bundle.save(
        Personaliser(base, settings.model),
        root / settings.bundle_dir(4),
        {"stage": 4, "parent": "p" * 64, "data": {"pairs": "d" * 64}},
    )
    [place] = write_shard(
        root / settings.photos_dir / "00000.tar", [("a.png", png(np.full((64, 64, 3), 90, np.uint8)))]
    )
    rows = [{"id": "a", "split": "test", "consent": "real", "verdict": records.ACCEPTED, **place._asdict()}]
    records.write(root / settings.data_dir("curate") / "photos.parquet", rows, records.PHOTO)
    for command in (
        ["init", "-q"],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "--allow-empty", "-m", "t"],
    ):
        subprocess.run(["git", "-C", str(root), *command], check=True)
    return root, settings


def evaluated(settings, identity):
    write_json(settings.report_dir("evaluate") / "metrics.json", {"stage4": measured(identity)})


def register(settings):
    with stage_run(settings, "register") as tracked:
        run.run(settings, tracked)


def registration(settings):
    return json.loads((settings.report_dir("register") / "registration.json").read_text())


@pytest.mark.timeout(240)
def test_versions_aliases_and_a_model_that_draws(finished, monkeypatch):
    import c2pa
    import mlflow
    import pandas

    from iy.tracking import connect

    root, settings = finished
    monkeypatch.chdir(root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    evaluated(settings, 0.5)
    register(settings)
    first = (settings.report_dir("register") / "registration.json").read_bytes()
    assert registration(settings)["verdict"] == gate.PROMOTED
    client = connect()
    version = client.get_model_version_by_alias("iy-test", "champion")
    assert (
        version.tags["iy.data.pairs"] == "d" * 64
        and version.tags["iy.parent"] == "p" * 64
        and len(version.tags["iy.commit"]) == 40
    )
    assert version.tags["iy.settings"] == settings.digest()

    register(settings)
    assert (settings.report_dir("register") / "registration.json").read_bytes() == first
    assert len(client.search_model_versions("name = 'iy-test'")) == 1, "the same bundle and numbers are one version"

    evaluated(settings, 0.3)
    register(settings)
    assert registration(settings)["verdict"] == gate.REFUSED
    assert client.get_model_version_by_alias("iy-test", "champion").version == version.version
    assert client.get_model_version_by_alias("iy-test", "challenger").version != version.version

    champion, challenger = registered(settings)
    assert champion.champion and champion.id == "iy-test/1" and challenger.title == "challenger: version 2 of iy-test"
    (root / "base").rename(root / "elsewhere")  # the registry serves without the workspace
    stored = champion.find().parents[2]
    bring(stored.as_uri(), root / "brought")  # as from a registry on another machine
    for folder in (champion.find(), inside(root / "brought", "iy-test", "1")):
        assert Path(locate(read_config(folder)["base"], folder).unet.path).is_dir(), "the page opens it"
    known = bundle_version(settings.bundle_dir(4))
    assert Terms.of(settings).drawer(champion.find()) == Drawer("iy-test", known), "as the registry calls it"
    monkeypatch.chdir(root.parent)
    model = mlflow.pyfunc.load_model("models:/iy-test@champion")
    drawn = model.predict(
        pandas.DataFrame([{"prompt": "a smiling person", "reference": "", "seed": seed} for seed in (3, 4, 3)])
    )
    (root / "elsewhere").rename(root / "base")
    images = [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in drawn["image"]]
    assert images[0].shape == (64, 64, 3)
    with c2pa.Reader("image/png", io.BytesIO(base64.b64decode(drawn["image"][0]))) as reader:
        assert reader.get_validation_state() == "Valid" and '"iy-test"' in reader.json(), "served pictures are signed"
    assert (images[0] == images[2]).all() and (images[0] != images[1]).any()
    with pytest.raises(Exception, match="row 0: reference is not base64"):
        model.predict(pandas.DataFrame([{"prompt": "x", "reference": "?!", "seed": 0}]))


def test_a_registry_that_cannot_be_used_is_told_with_its_reason(finished, monkeypatch):
    root, settings = finished
    monkeypatch.chdir(root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/nowhere/mlflow.db")
    evaluated(settings, 0.5)
    with pytest.raises(UserError, match="the registry sqlite:.* cannot be used .*(directory|unable to open)"):
        register(settings)


def test_missing_results_are_named(finished, monkeypatch, tmp_path):
    _, settings = finished
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="metrics.json does not exist: run evaluate first"):
        run.run(settings, UNTRACKED)
    evaluated(settings, 0.5)
    with pytest.raises(UserError, match="holds no finetuned model"):
        run.run(settings, UNTRACKED)
