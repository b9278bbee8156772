"""Calibration, verdicts and references on hand-made values; the whole stage on a tiny random model."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from iy import params, records
from iy.errors import UserError
from iy.params import SynPairs
from iy.records import ACCEPTED, REJECTED
from iy.synpairs import accept, bounds
from iy.synpairs.accept import Kind
from iy.synpairs.plan import chosen_photos
from tests.pairs import files
from tests.tiny import tiny_settings

CAPTION = "A portrait of a young woman with long black hair, smiling, facing the camera, in soft light."
GOOD = "A portrait of a young woman with long black hair, laughing, facing left, in soft light."


def test_auc_counts_ties_half_and_is_unknown_without_both_kinds():
    assert bounds.auc(np.array([0.9, 0.5]), np.array([0.5, 0.1])) == pytest.approx(3.5 / 4)
    assert bounds.auc(np.array([]), np.array([0.5])) is None


@pytest.mark.parametrize("rate", [0, 0.01, 0.05, 0.5])
def test_the_lower_bound_lets_exactly_the_stated_share_of_impostors_pass(rate):
    impostor = np.random.default_rng(1).uniform(-1, 1, 1000)
    bound = bounds.lower_bound(impostor, rate)
    assert (impostor >= bound).mean() == pytest.approx(rate)


def test_ties_never_pass_more_than_asked_and_rate_one_is_no_bound():
    assert (np.full(100, 0.5) >= bounds.lower_bound(np.full(100, 0.5), 0.01)).mean() == 0
    assert bounds.lower_bound(np.array([0.1, 0.2]), 1.0) == -1


def test_genuine_and_impostor_pairs_are_counted_without_a_photo_and_itself():
    vectors = np.array([[1.0, 0], [0, 1], [1, 0], [-1, 0]])
    genuine, impostor = bounds.similarities(vectors, vectors, ["a", "a", "b", "b"])
    assert len(genuine) == 4 and len(impostor) == 8
    assert sorted(genuine) == pytest.approx([-1, -1, 0, 0])
    assert impostor.max() == pytest.approx(1), "photo 0 of a and photo 2 of b look alike"


def test_choices_say_why():
    limits = bounds.Bounds(0.5, 0.9)
    assert accept.choose([0.4, 0.7, 0.6], limits) == (Kind.WITHIN, 1, "")
    assert accept.choose([None, None], limits) == (Kind.NO_FACE, None, "no face found")
    assert accept.choose([0.1, None, 0.2], limits) == (Kind.BELOW, 2, "below lower bound 0.500")
    assert accept.choose([0.95, 0.99], limits).reason.startswith("above upper bound 0.900")
    assert accept.choose([0.6, 0.95], limits) == (Kind.WITHIN, 0, ""), "a copy is passed over for the best that is none"


def test_the_best_below_the_bound_are_kept_only_as_asked_and_say_so():
    def row(name, value, verdict=REJECTED):
        said = {"similarity": [value], "kept_pass": 0, "verdict": verdict, "reason": "in any words"}
        return {"id": name, "lower": 0.5, "upper": 0.9} | said

    rows = [row("a", 0.1), row("b", 0.3), row("c", 0.6, ACCEPTED), row("d", 0.99)]
    assert [accept.kind_of(one) for one in rows] == [Kind.BELOW, Kind.BELOW, Kind.WITHIN, Kind.ABOVE]
    assert accept.keep_best([dict(one) for one in rows], 0) == 0
    assert accept.keep_best(rows, 0.5) == 1
    assert [one["verdict"] for one in rows] == [REJECTED, ACCEPTED, ACCEPTED, REJECTED]
    assert rows[1]["reason"] == "kept as best available, below bound 0.500"
    assert accept.keep_best(rows, 1) == 1 and rows[3]["verdict"] == REJECTED, "a copy is never taken in"


def photo(name, person, split="train", verdict=ACCEPTED):
    return {"id": name, "person": person, "split": split, "verdict": verdict, "caption": CAPTION}


def test_references_come_in_turn_from_accepted_training_photos_in_an_order_that_only_the_seed_decides(tmp_path):
    def chosen(rows, seed):
        records.write(tmp_path / "photos.parquet", rows, records.PHOTO)
        settings = tiny_settings(tmp_path)["synpairs"] | {"pairs_per_person": 3}
        return chosen_photos(tmp_path / "photos.parquet", SynPairs.model_validate(settings), seed)

    rows = [photo(f"a{i}", "ann") for i in range(5)] + [
        photo("b0", "bob"),
        photo("c0", "eve", "test"),
        photo("d0", "ann", verdict=REJECTED),
        photo("a1", "ann", verdict=REJECTED),  # a copy has its original's id
    ]
    first = chosen(rows, 0)
    assert first == chosen(rows[::-1], 0) != chosen(rows, 1)
    assert [row["person"] for row, _ in first] == ["ann"] * 3 + ["bob"] * 3
    assert len({row["id"] for row, _ in first[:3]}) == 3 and [number for _, number in first] == [0, 1, 2, 0, 1, 2]
    assert all(row["verdict"] == ACCEPTED and row["caption"] == CAPTION for row, _ in first), "whole rows"
    with pytest.raises(UserError, match="no accepted photo of a training person"):
        chosen([photo("c0", "eve", "test")], 0)


def test_the_whole_stage_fakes_nothing_and_gives_the_same_files_twice(tiny_project):
    from iy.synpairs.run import run

    run(tiny_project)
    first = files(tiny_project)
    rows = records.read(tiny_project.data_dir("synpairs") / "pairs.parquet", records.PAIR)
    assert [row["person"] for row in rows] == ["s1", "s1", "s2", "s2", "s3", "s3"]
    assert {(row["verdict"], row["reason"]) for row in rows} == {(REJECTED, "no face found")}, "noise is not a portrait"
    assert all(row["similarity"] == [None] * 3 and row["licence"].startswith("AT&T") for row in rows)
    assert all({"expression", "pose"} & set(row["changed"]) and row["rewriter"] == "grammar" for row in rows)
    found = json.loads((tiny_project.data_dir("synpairs") / "bounds.json").read_text())
    assert found["genuine"]["count"] == 6 and found["impostor"]["count"] == 24
    assert found["auc"] > 0.9 and found["false_match_rate"] <= 0.2
    assert found["pairs"] == {"made": 6, "within bounds": 0, "kept below the bound": 0}
    run(tiny_project)
    assert files(tiny_project) == first
    assert not list(tiny_project.data_dir("synpairs").parents[2].glob(".iy/resume/*/synpairs*")), (
        "no work folder is left"
    )


def test_shards_that_are_there_are_not_made_again(tiny_project, monkeypatch):
    from iy.synpairs import shards
    from iy.synpairs.run import run

    monkeypatch.setattr(shards, "SHARD", 2)
    made, make = [], shards.Maker.make

    def stops_once(self, plans):
        made.append(plans[0].reference["person"])
        if made == ["s1", "s2"]:
            raise KeyboardInterrupt
        return make(self, plans)

    monkeypatch.setattr(shards.Maker, "make", stops_once)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_project)
    run(tiny_project)
    assert made == ["s1", "s2", "s2", "s3"]
    table = pq.read_table(tiny_project.data_dir("synpairs") / "pairs.parquet").to_pylist()
    assert [row["shard"] for row in table] == [f"0000{i // 2}.tar" for i in range(6)]


def test_photographs_pass_or_fail_as_the_people_on_them(tiny_project):
    """The measuring end of the stage on faces that are known: the bounds judge them as they should."""
    from iy.faces import load_analyser
    from iy.storage import read_image
    from iy.synpairs.make import Made, Maker
    from iy.synpairs.plan import Plan
    from iy.synpairs.rewriters import Rewrite
    from iy.synpairs.run import known_similarities

    rows = records.read(tiny_project.data_dir("curate") / "photos.parquet", records.PHOTO)
    analyser = load_analyser(tiny_project.faces, tiny_project.usage, "cpu")
    genuine, impostor = known_similarities(tiny_project.data_dir("curate") / "photos.parquet", analyser, tiny_project)
    limits = bounds.bounds(genuine, impostor, 0, 1)
    maker = Maker(tiny_project, None, None, analyser, "bundle", "grammar", limits)
    plan = Plan(rows[0], 0, 1, Rewrite(GOOD, ["pose"], None))
    images = [read_image(tiny_project.photos_dir, row) for row in rows]
    itself, same, other = (maker.measure(image, plan) for image in (images[0], images[1], images[2]))
    assert itself == pytest.approx(1, abs=1e-3) and other < limits.lower < same <= limits.upper < itself
    row, data = maker.row(plan, Made([images[2], images[1], images[0]], [other, same, itself]))
    assert row["verdict"] == ACCEPTED and row["kept_pass"] == 1 and row["reference"] == rows[0]["id"] and data
    assert maker.row(plan, Made([images[2]], [other]))[0]["reason"].startswith("below lower bound")
    assert maker.row(plan, Made([images[0]], [itself]))[0]["reason"].startswith("above upper bound")
    refused, data = maker.row(Plan(rows[0], 0, 1, Rewrite("x", [], "it is empty")), None)
    assert refused["verdict"] == REJECTED and data is None and "shard" not in refused


def test_shards_made_on_ray_have_the_very_bytes_of_those_made_here(tiny_project, monkeypatch):
    from iy.synpairs import shards
    from iy.synpairs.run import run

    monkeypatch.setattr(shards, "SHARD", 2)
    run(tiny_project)
    here = files(tiny_project)
    monkeypatch.delattr(shards.Maker, "make")  # this process must not be asked
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    run(tiny_project.model_copy(update={"workers": params.Workers(map="ray", count=2, address=None)}))
    assert files(tiny_project) == here and len(here) >= 5
