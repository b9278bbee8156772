"""A table of jobs becomes a folder of pictures: each by itself, whoever draws it, and however often it is begun."""

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from iy import params, records
from iy.diffusion import load_base
from iy.errors import UserError
from iy.generate.portrait import open_artist, version
from iy.jobs import draw, run, table
from iy.model import bundle
from iy.pictures import Limits
from iy.policy import people
from iy.policy.people import BLOCKED, Person
from iy.provenance.read import read
from tests import att_faces
from tests.depth import THOROUGH, depth
from tests.tiny import moved, tiny_base, tiny_settings

PROMPTS = [
    "a smiling man",
    "a man",
    "a sad man in a blue jacket",
    "a man, looking to the left, in front of a brick wall in the evening, with a hat and a beard",
]


class Made(NamedTuple):
    """A folder with photographs p1.png … of as many persons and a bundle, and settings that draw with it."""

    folder: Path
    settings: params.Params

    def value(self) -> dict[str, Any]:
        return self.settings.resolved()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Made:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("made")
    value = tiny_settings(tiny_base(folder / "base"))
    value["workers"]["map"] = "serial"
    value["jobs"] = {"batch": 4, "threads": 1}
    value["draw"]["steps"] = 2
    settings = params.parse(value, "tiny")
    bundle.save(moved(load_base(settings.base), settings.model), folder / "bundle", {})
    for person in range(1, depth(3, 10) + 1):
        photograph(person).save(folder / f"p{person}.png")
    return Made(folder, settings)


def photograph(person: int) -> Image.Image:
    return Image.fromarray(att_faces.att(person, 1)).resize((368, 448))


def several(count: int, prompts: Sequence[str], people: int) -> list[dict]:
    """Jobs that name every prompt and every face in turn, with a name and a seed each."""
    return [
        {"name": f"j{i}", "reference": f"p{i % people + 1}.png", "prompt": prompts[i % len(prompts)], "seed": i}
        for i in range(count)
    ]


def written(folder: Path, rows: list[dict], name: str = "jobs.csv") -> Path:
    path = folder / name
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path
    with path.open("w", newline="") as file:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


def drawn(made: Made, rows: list[dict], out: Path, name: str = "jobs.csv", **workers: object) -> run.Done:
    settings = made.settings.model_copy(update={"workers": made.settings.workers.model_copy(update=workers)})
    return run.draw_table(settings, made.folder / "bundle", written(made.folder, rows, name), out, 0)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


JOBS = several(depth(24, 2000), [f"{PROMPTS[i % 4]} {i // 4}" for i in range(depth(8, 200))], depth(3, 10))


@pytest.fixture(scope="module")
def whole(made, tmp_path_factory) -> Path:
    """All jobs, drawn without a disturbance."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert drawn(made, JOBS, out)[:3] == (len(JOBS), 0, [])
    return out


def test_every_row_is_a_picture_a_line_of_the_table_and_on_a_sheet(whole):
    found = files(whole)
    sheets = {f"sheet-{number + 1}.png" for number in range(-(-len(JOBS) // 400))}
    assert set(found) == {*(f"{row['name']}.png" for row in JOBS), "pictures.parquet", *sheets}
    rows = records.read(whole / "pictures.parquet", table.PICTURE)
    assert [(row["row"], row["file"], row["seed"]) for row in rows] == [
        (i + 1, f"j{i}.png", i) for i in range(len(JOBS))
    ]
    assert len({found[row["file"]] for row in rows}) == len(JOBS), "other prompts, faces or seeds are other pictures"
    assert Image.open(whole / "j0.png").size == (64, 64)
    assert Image.open(whole / "sheet-1.png").size == (90 + 20 * 98 + 2, 98 * min(20, -(-len(JOBS) // 20)) + 2)


def test_pictures_and_sheets_leave_marked(made, whole):
    said = {
        name: read(whole / name, made.settings.provenance, Limits(10**8, 4096)) for name in ("j0.png", "sheet-1.png")
    }
    assert {name: (one.state, one.source) for name, one in said.items()} == {
        "j0.png": ("own", "trainedAlgorithmicMedia"),
        "sheet-1.png": ("own", "compositeWithTrainedAlgorithmicMedia"),
    }
    assert said["j0.png"].model == f"iy-tiny {version(made.folder / 'bundle')}" and said["j0.png"].time
    assert said["sheet-1.png"].model == said["j0.png"].model
    off = made.settings.model_copy(update={"provenance": made.settings.provenance.model_copy(update={"mark": False})})
    keys = {run.made_by(one, made.folder / "bundle", made.settings.base) for one in (made.settings, off)}
    assert len(keys) == 2, "pictures that say something else are others"


def test_who_must_not_be_drawn_is_refused_also_when_a_run_goes_on(made, tmp_path, monkeypatch):
    """By what the photograph shows, and by what curate has of a person; the faces were cut before they were listed."""
    monkeypatch.chdir(tmp_path)
    known = att_faces.write(made.settings, {"s1": "train", "s2": "train"}, per_person=1)
    names = {"reference": ["p1.png", "p2.png"], "person": ["s1", "s2"]}
    rows = [{"prompt": "a man", column: name} for column, several in names.items() for name in several]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run, "draw_missing", interrupted)
        drawn(made, rows, tmp_path / "out")
    assert len(list((tmp_path / "out" / run.UNFINISHED / "faces").iterdir())) == 4
    lists = Path(made.settings.policy.people)
    people.add(lists, Person("One", BLOCKED, known[0]["recogniser"], [known[0]["embedding"]], "2026-11-27"))
    done = drawn(made, rows, tmp_path / "out")
    assert [(one.row, one.reason.split(":")[0]) for one in done.refused] == [
        (1, "column reference"),
        (3, "column person"),
    ]
    assert all("this person must not be drawn" in one.reason for one in done.refused)
    assert {*files(tmp_path / "out")} >= {"picture-000002.png", "picture-000004.png"} and done.drawn == 2
    assert len((lists / "refusals.jsonl").read_text().splitlines()) == 2


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_prompts_and_faces_are_encoded_once(made, tmp_path):
    draw.opened.cache_clear()
    pipeline = draw.opened(json.dumps(made.value()), made.folder / "bundle")[0].pipeline
    asked = {"text": 0, "face": 0}

    def count(kind: str) -> Any:
        return lambda *_: asked.update({kind: asked[kind] + 1})

    pipeline.text["clip"].encoder.register_forward_hook(count("text"))
    pipeline.model.vision.tower.register_forward_hook(count("face"))
    drawn(made, JOBS[:24], tmp_path / "out")
    prompts = {row["prompt"] for row in JOBS[:24]} | {""}
    assert asked == {"text": len(prompts), "face": len({row["reference"] for row in JOBS[:24]})}
    draw.opened.cache_clear()


def test_a_row_is_drawn_as_the_pipeline_draws_it(made, whole):
    artist = draw.opened(json.dumps(made.value()), made.folder / "bundle")[0]
    row, how = JOBS[3], made.settings.draw
    face = artist.reference((made.folder / row["reference"]).read_bytes(), row["reference"])
    options = {"num_inference_steps": how.steps, "guidance_scale": how.guidance}
    bare = artist.pipeline(row["prompt"], face, seeds=[row["seed"]], **options).images[0]
    ours = np.asarray(Image.open(whole / "j3.png"), int)
    assert np.abs(ours - np.asarray(bare, int)).max() <= 1, "but for rounding"


def test_a_picture_is_the_same_whatever_it_is_drawn_beside(made, whole, tmp_path):
    """Other neighbours, another place in the batch, other options among them, rows that are refused."""
    others = [{"name": f"o{i}", "reference": "p1.png", "prompt": "x " * 5 * i, "seed": 99} for i in range(6)]
    others[2] |= {"steps": "1"}
    others[4] |= {"seed": "none"}
    mixed = [others[0], JOBS[5], *others[1:4], JOBS[2], JOBS[20], *others[4:], JOBS[11]]
    drawn(made, mixed, tmp_path / "out")
    for name in ("j5.png", "j2.png", "j20.png", "j11.png"):
        assert (tmp_path / "out" / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(made, whole, tmp_path, monkeypatch):
    write, left = draw.write_bytes, iter(range(6))

    def stopping(path: Path, data: bytes) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        write(path, data)

    monkeypatch.setattr(draw, "write_bytes", stopping)
    with pytest.raises(KeyboardInterrupt):
        drawn(made, JOBS[:24], tmp_path / "out")
    monkeypatch.setattr(draw, "write_bytes", write)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(int(os.environ["SOURCE_DATE_EPOCH"]) + 3600))  # the next day, say
    assert (tmp_path / "out" / run.UNFINISHED).is_dir()
    done = drawn(made, JOBS[:24], tmp_path / "out")
    assert (done.drawn, done.kept) == (20, 4), "the shard that was whole is not drawn again"
    again, before = files(tmp_path / "out"), files(whole)
    assert all(again[f"{row['name']}.png"] == before[f"{row['name']}.png"] for row in JOBS[:24])
    assert not [name for name in again if name.startswith(".")]


def test_a_table_that_changed_draws_what_is_new(made, whole, tmp_path):
    rows = [dict(row) for row in JOBS[:8]]
    rows[7] = rows[0] | {"name": "twin"}
    drawn(made, rows, tmp_path / "out")
    before = files(tmp_path / "out")
    rows[3]["prompt"] = "a laughing man"
    (tmp_path / "out" / "sheet-2.png").write_bytes(b"of a longer table")
    (tmp_path / "out" / "j6.png").write_bytes(b"cut off")
    done = drawn(made, rows, tmp_path / "out")
    after = files(tmp_path / "out")
    assert (done.drawn, done.kept) == (2, 6)
    assert {name for name in after if after[name] != before[name]} == {"j3.png", "sheet-1.png", "pictures.parquet"}
    assert drawn(made, rows, tmp_path / "out")[:2] == (0, 8) and files(tmp_path / "out") == after


@pytest.mark.parametrize("kind", depth(["processes"], ["processes", "ray"]))
def test_whoever_draws_it_is_the_same_bytes(made, whole, tmp_path, kind, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    drawn(made, JOBS, tmp_path / "out", map=kind)
    assert files(tmp_path / "out") == files(whole)


WRONG = [
    ({"seed": "abc"}, "column seed: 'abc' does not do: give a whole number, 0 or more"),
    ({"seed": -1}, "column seed: -1 does not do"),
    ({"seed": True}, "column seed: True does not do"),
    ({"steps": 10**9}, "column steps: 1000000000 does not do: give a whole number, 1 to 1000"),
    ({"guidance": "nan"}, "column guidance: 'nan' does not do"),
    ({"prompt": " "}, "column prompt: nothing is there: say what the picture shows"),
    ({"prompt": "half \ud83d"}, "column prompt: .* does not do"),
    ({"guidence": 3}, "column 'guidence': it is nearly guidance: call it guidance, or take it out"),
    ({"text": "x"}, "column text: prompt is said twice: keep one"),
    ({"person": "s1"}, "column reference or person: fill in one of them, and not both"),
    ({"reference": None}, "column reference or person: fill in one of them"),
    ({"reference": "no.png"}, "column reference: .*no.png: the file cannot be read: No such file"),
    ({"reference": "https://x/y.png"}, "column reference: 'https://x/y.png' is not fetched: name a file"),
    ({"reference": "jobs.jsonl"}, "column reference: .*jobs.jsonl: not an image"),
    ({"reference": None, "person": "Anna"}, "column person: there is no collection at data/tiny/curate/photos.parquet"),
    ({"person_strength": [1, 2]}, "column person_strength: it has 2 entries for 1 people: give one for each"),
    ({"branch_strength": {"bert": 1}}, "column branch_strength: there is no 'bert': name byt5, clip, ul2, vision"),
    ({"branch_strength": "{1"}, "column branch_strength: '{1' does not do: give a JSON object"),
    ({"regions": [[0, 0, 2, 1]]}, "column regions: .* does not do: give a JSON list of a box"),
    ({"regions": [[0.001, 0.001, 0.002, 0.002]]}, "regions: number 1 covers nothing"),
    ({"width": 1000}, "column width: 1000 pixels are too many: this model draws at most 256"),
    ({"height": 66}, "height and width must be multiples of 8, got 66 and 64"),
    ({"name": "j1"}, "column name: 'j1.png' is row 2's: give each picture its own"),
    ({"name": "J1.PNG"}, "column name: 'J1.png' is row 2's"),
]


def test_a_bad_row_is_told_and_skipped(made, whole, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "TOLD", 100)
    good = [dict(row) for row in JOBS[:2]]
    rows = good + [{"reference": "p1.png", "prompt": "a man"} | wrong for wrong, _ in WRONG]
    done = drawn(made, rows, tmp_path / "out", "jobs.jsonl")
    told = "\n".join(record.getMessage() for record in caplog.records)
    reasons = {one.row: one.told() for one in done.refused}
    for number, (wrong, says) in enumerate(WRONG, 3):
        assert number in reasons, wrong
        assert re.search(says, reasons[number]), (wrong, reasons[number])
        assert reasons[number] in told
    assert done.drawn == 2 and all(files(tmp_path / "out")[f"j{i}.png"] == files(whole)[f"j{i}.png"] for i in (0, 1))
    kept = records.read(tmp_path / "out" / "pictures.parquet", table.PICTURE)
    assert [row["verdict"] for row in kept] == ["accepted"] * 2 + ["rejected"] * len(WRONG)


STRANGE = ["../x", "/tmp/x", "a/b", "a\\b", "..", ".x", "-x", "C:x", "con", "NUL.txt", "a\nb", "a\u202egnp", "x" * 300]
STRANGE += ["picture-000001", "sheet-1", "a ", "a.", ".png", "?", "x\0y"]


def test_no_name_leaves_the_folder(made, tmp_path):
    rows = [{"name": name, "reference": "p1.png", "prompt": "a man"} for name in [*STRANGE, "Jürgen v2 (1)"]]
    before = {path for path in tmp_path.parent.rglob("*") if tmp_path not in path.parents}
    done = drawn(made, rows, tmp_path / "out", "jobs.jsonl")
    assert done.drawn == 2, "outer space is nothing that a table says: one of them is called a"
    assert set(files(tmp_path / "out")) == {"Jürgen v2 (1).png", "a.png", "sheet-1.png", "pictures.parquet"}
    assert {path for path in tmp_path.parent.rglob("*") if tmp_path not in path.parents} == before


def test_people_of_the_collection_and_several_in_one_picture(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    att_faces.write(made.settings, {"s1": "train", "s2": "train"}, per_person=2)
    two = {"reference": ["p1.png", "p2.png"], "prompt": "two men", "regions": [[0, 0, 0.5, 1], [0.5, 0, 1, 1]]}
    rows: list[dict] = [
        {"name": "one", "person": "s1", "prompt": "a man"},
        {"name": "both", "person": ["s1", "s2"], "prompt": "two men"},
        {"name": "placed", **two},
        {"name": "faint", **two, "person_strength": [1, 0.2]},
        {"name": "nobody", "person": "s22", "prompt": "a man"},
    ]
    done = drawn(made, rows, tmp_path / "out", "jobs.jsonl")
    assert done.drawn == 4 and len({*files(tmp_path / "out").values()}) == 6, "all differ"
    [nobody] = done.refused
    assert "row 5, column person: nobody is called 's22' among the accepted photos of data/tiny" in nobody.told()


@pytest.mark.parametrize(
    "rows, name, message",
    [
        ([{"reference": "p1.png"}], "jobs.csv", "columns prompt and one of reference, person are needed; it has refer"),
        ([{"reference": "no.png", "prompt": "x"}], "jobs.csv", "no row can be drawn: row 1, column reference"),
        ([{"reference": "p1.png", "prompt": "x"}], "jobs.txt", "is no table: name a file that ends in .csv"),
        ([{"text": "x", "prompt": "x", "person": "y"}], "jobs.csv", "has two columns for prompt: keep one"),
    ],
)
def test_a_table_of_no_use_is_one_sentence_and_leaves_nothing(made, tmp_path, rows, name, message):
    with pytest.raises(UserError, match=message):
        drawn(made, rows, tmp_path / "out", name)
    assert not (tmp_path / "out").exists()


def test_two_runs_do_not_draw_into_one_folder(made, tmp_path):
    (tmp_path / "out" / run.UNFINISHED).mkdir(parents=True)
    with run.alone(tmp_path / "out"), pytest.raises(UserError, match="another run is drawing into .*out: wait for it"):
        drawn(made, JOBS[:1], tmp_path / "out")


def test_a_folder_of_other_files_is_not_written_to(made, tmp_path):
    (tmp_path / "j0.png").write_text("mine")
    with pytest.raises(UserError, match="holds other files: name a new or an empty folder"):
        drawn(made, JOBS[:1], tmp_path)
    assert files(tmp_path) == {"j0.png": b"mine"}


def test_one_picture_costs_one_picture(made):
    """No batch is filled up for a single one, and of nine the two batches have five each."""
    artist = open_artist(made.folder / "bundle", made.settings)
    rows: list[int] = []
    artist.pipeline.model.unet.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    for count, batches in ((1, [1]), (8, [8]), (9, [5, 5]), (64, [8] * 8)):
        rows.clear()
        artist.draw([None] * count, ["a man"] * count, list(range(count)), 1, 1.0, 1.0)
        assert rows == batches


def test_what_is_kept_is_bounded_and_the_oldest_goes_first():
    from iy.jobs.kept import Kept

    made, kept = [], Kept(10, len)

    def asked(key: str, size: int = 4) -> None:
        kept.get(key, lambda: made.append(key) or "x" * size)

    for key in ("a", "b", "a", "c", "a", "b"):
        asked(key)
    assert made == ["a", "b", "c", "b"] and kept.held <= 10
    asked("large", 100)
    asked("large", 100)
    assert made[4:] == ["large"] and list(kept.answers) == ["large"], "what is larger than all is held alone"


@pytest.mark.skipif(not THOROUGH, reason="minutes: IY_THOROUGH=1")
@pytest.mark.timeout(7200)
def test_killed_five_times_it_ends_in_the_same_bytes(made, whole, project):
    value = made.value() | {"workers": {"map": "processes", "count": 2, "address": None}}
    del value["profile"]
    (project / "profiles" / "tiny.yaml").write_text(yaml.safe_dump(value, sort_keys=False))
    asked = ["generate", "--profile", "tiny", "--bundle", str(made.folder / "bundle"), "--out", "out"]
    command = [sys.executable, "-m", "iy", *asked, "--table", str(written(made.folder, JOBS))]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    out, moments, seen = project / "out", random.Random(0), 0
    for _ in range(5):
        child = subprocess.Popen(command, env=environment, start_new_session=True)
        while child.poll() is None and len(list(out.glob("j*.png"))) <= seen:
            time.sleep(0.05)
        time.sleep(moments.uniform(0, 5))
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL, "it was hit while it worked"
        time.sleep(1)  # its workers end with it
        seen = len(list(out.glob("j*.png")))
        assert 0 < seen < len(JOBS)
    assert subprocess.run(command, env=environment).returncode == 0
    assert files(out) == files(whole)
