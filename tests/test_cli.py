"""The `iy` command: instant help, one-line errors, and real portraits from a photograph of one person."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from flows.command import overrides
from iy import cli, doctor, params
from iy.errors import UserError
from iy.photos.own import own_photos
from tests import att_faces
from tests.tiny import tiny_base, tiny_settings

HEAVY = {
    "torch",
    "numpy",
    "pandas",
    "pydantic",
    "mlflow",
    "prefect",
    "diffusers",
    "transformers",
    "cv2",
    "dvc",
    "scipy",
    "yaml",
}


def iy(*arguments, folder=None):
    return subprocess.run(
        [sys.executable, "-m", "iy", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**__import__("os").environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )


def test_help_loads_nothing_heavy():
    done = subprocess.run([sys.executable, "-X", "importtime", "-m", "iy", "--help"], capture_output=True, text=True)
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "typer" in loaded and not loaded & HEAVY
    assert done.returncode == 0
    for command in ("run", "doctor", "generate", "weights", "params", "studio", "ui"):
        assert re.search(rf"\b{command}\b", done.stdout)


def test_params_prints_what_was_resolved():
    done = iy("params", "smoke")
    assert params.parse(yaml.safe_load(done.stdout), "printed") == params.load("smoke")
    assert params.load("smoke").digest() in done.stdout


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["params", "nope"], "profiles/nope.yaml does not exist"),
        (["run", "--profile", "nope"], "profiles/nope.yaml does not exist"),
        (["run", "--photos", "/no/such/folder"], "there is no such folder"),
        (
            ["generate", "--reference", "a.jpg", "--prompt", "x", "--bundle", "nowhere"],
            "nowhere holds no finetuned model",
        ),
    ],
)
def test_mistakes_are_one_line(arguments, says):
    done = iy(*arguments)
    assert done.returncode == 2 and says in done.stderr and done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr


def test_away_from_the_project(tmp_path):
    done = iy("run", folder=tmp_path)
    assert done.returncode == 2 and "run from the project folder" in done.stderr and "Traceback" not in done.stderr


def test_own_photos_are_noticed_when_they_change(tmp_path):
    with pytest.raises(UserError, match="the folder is empty"):
        own_photos(str(tmp_path))
    (tmp_path / "anna").mkdir()
    (tmp_path / "anna" / "1.jpg").write_bytes(b"x")
    (tmp_path / "anna" / "loop").symlink_to(tmp_path)
    first = own_photos(str(tmp_path))
    assert own_photos(str(tmp_path)) == first and (first["photos.source"], first["photos.path"]) == (
        "folder",
        str(tmp_path),
    )
    (tmp_path / "anna" / "2.jpg").write_bytes(b"y")
    assert own_photos(str(tmp_path)) != first


def test_nobody_has_said_that_own_photos_are_free_to_use_unless_the_user_does(tmp_path):
    (tmp_path / "1.jpg").write_bytes(b"x")
    found = overrides(str(tmp_path), ["photos.licence=CC-BY-4.0"])
    assert found["photos.licence"] == "CC-BY-4.0" and found["photos.consent"] == "not stated"
    assert overrides(str(tmp_path), [])["photos.licence"] == "unknown"
    by_hand = ["photos.source=folder", f"photos.path={tmp_path}"]
    assert overrides(None, by_hand)["photos.licence"] == "unknown"
    assert "photos.licence" not in overrides(None, ["photos.people=9"]), "the studio's are its own"


def test_doctor_names_the_remedy(project, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    found = {finding.what: finding for finding in [*doctor.settings(), *doctor.services()]}
    assert found["weights"].state == "missing" and "git checkout" in found["weights"].remedy  # a folder without weights
    assert (
        found["MLflow"].state == "missing"
        and "iy ui" in found["MLflow"].remedy
        and "secret" not in found["MLflow"].detail
    )
    assert doctor.show(list(found.values())) == 1
    assert doctor.show([doctor.Finding("ok", "a", "b"), doctor.Finding("note", "a", "b", "c")]) == 0


def test_doctor_says_who_signs_and_why_there_is_no_watermark(project):
    found = {finding.what: finding for finding in doctor.marks()}
    assert "self-signed" in found["signature"].detail and found["watermark"].state in ("note", "ok")
    profile = project / "profiles" / "studio.yaml"
    profile.write_text(profile.read_text().replace("certificate: null", "certificate: none.pem"))
    found = {finding.what: finding for finding in doctor.marks()}
    assert found["signature"].state == "missing" and "go together" in found["signature"].detail
    profile.write_text(profile.read_text().replace("  mark: true", "  mark: false"))
    [found] = doctor.marks()
    assert found.state == "note" and "provenance.mark is false" in found.detail


def test_doctor_sees_what_is_installed(root):
    states = {finding.what: finding.state for finding in doctor.packages()}
    assert set(states) == set(doctor.PACKAGES) and "missing" not in states.values()
    assert doctor.pins()["torch"] and "+" not in doctor.pins()["torch"]


@pytest.fixture(scope="module")
def att():
    """Grey photographs, 112 x 92, of two people (AT&T Laboratories Cambridge), enlarged as a camera would give them."""
    return [Image.fromarray(att_faces.photo(person, 1)).resize((368, 448)) for person in ("s1", "s2")]


@pytest.fixture
def studio_with_a_model(project, tmp_path):
    """A project whose profile `tiny` has a finished stage 4, a random one."""
    from iy.diffusion import load_base
    from iy.model import Personaliser, bundle

    value = tiny_settings(tiny_base(tmp_path / "base"))
    value["draw"]["steps"] = 2
    del value["profile"]
    (project / "profiles" / "tiny.yaml").write_text(yaml.safe_dump(value, sort_keys=False))
    settings = params.load("tiny")
    bundle.save(Personaliser(load_base(settings.base, "cpu"), settings.model), settings.bundle_dir(4), {})
    return project


def generate(reference, *more):
    return CliRunner().invoke(
        cli.app, ["generate", "--profile", "tiny", "--reference", str(reference), "--prompt", "a smile", *more]
    )


def test_a_table_is_drawn_into_a_folder(studio_with_a_model, att, caplog):
    profile = Path("profiles/tiny.yaml")
    profile.write_text(profile.read_text().replace("map: processes", "map: serial"))
    att[0].save("one.png")
    Path("jobs.csv").write_text("Reference;Prompt;Seed\none.png;a smile;3\none.png;;4\n")
    done = CliRunner().invoke(cli.app, ["generate", "--profile", "tiny", "--table", "jobs.csv"])
    assert done.exit_code == 0, done.output
    assert "jobs: 1 of 2 rows drawn (pictures.parquet says why); see sheet-1.png" in done.output
    assert "row 2, column prompt: nothing is there: say what the picture shows" in caplog.text
    assert {path.name for path in Path("jobs").iterdir()} == {"picture-000001.png", "pictures.parquet", "sheet-1.png"}
    for more, says in ((["--prompt", "x"], "leave --reference, --prompt and --count out"), ([], "give --reference")):
        asked = ["--table", "jobs.csv", *more] if more else ["--prompt", "x"]
        found = CliRunner().invoke(cli.app, ["generate", "--profile", "tiny", *asked]).exception
        assert isinstance(found, UserError) and says in str(found)


def test_generate(studio_with_a_model, att):
    one, two = att
    one.save("one.png")
    done = generate("one.png", "--count", "2", "--out", "made/p.png")
    assert done.exit_code == 0, done.output
    assert done.stdout.split() == ["made/p-1.png", "made/p-2.png"]
    first, second = (np.asarray(Image.open(path)) for path in done.stdout.split())
    assert first.shape == (64, 64, 3) and (first != second).any()

    def says(reference):
        found = generate(reference).exception
        assert isinstance(found, UserError)
        return str(found)

    Image.fromarray(np.hstack([one, two])).save("both.png")
    assert "both.png: 2 faces were found" in says("both.png")
    Image.new("RGB", (300, 300), "grey").save("nobody.png")
    assert "nobody.png: no face was found" in says("nobody.png")
    Path("words.jpg").write_text("not a picture")
    assert "words.jpg: not an image" in says("words.jpg")
    Path("cut.png").write_bytes(Path("one.png").read_bytes()[:4000])
    assert "cut.png: broken PNG image" in says("cut.png")
    assert "no such file" in says("absent.jpg")
