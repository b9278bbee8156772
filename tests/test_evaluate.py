"""Metrics on hand-made vectors with known answers; the whole stage on a tiny random model and real photographs."""

import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.stats
import torch

from iy import lexicon, params, tracking
from iy.diffusion import load_base
from iy.errors import UserError
from iy.evaluate import identity, measure, together
from iy.evaluate.alignment import Clip, probe_scores
from iy.evaluate.bootstrap import correlation, estimate
from iy.evaluate.look import NOTHING, Look
from iy.evaluate.prompts import ASKED, Prompt, prompts, subjects
from iy.model import Personaliser, bundle
from iy.seeds import cell_seed
from tests import att_faces
from tests.tiny import tiny_base, tiny_settings


def test_the_interval_is_the_formulas_when_every_image_is_its_own_person():
    values = np.random.default_rng(0).normal(5, 2, 400)
    found = estimate([np.array([value]) for value in values], 4000, 0)
    error = 1.96 * values.std() / 20
    assert found["value"] == pytest.approx(values.mean(), abs=1e-6) and found["n"] == 400
    assert found["low"] == pytest.approx(values.mean() - error, abs=0.03)
    assert found["high"] == pytest.approx(values.mean() + error, abs=0.03)


def test_the_interval_is_scipys_over_the_peoples_means():
    rng = np.random.default_rng(1)
    groups = [rng.normal(rng.normal(0, 3), 0.1, 12) for _ in range(30)]
    found = estimate(groups, 4000, 0)
    theirs = scipy.stats.bootstrap(
        ([group.mean() for group in groups],),
        np.mean,
        n_resamples=4000,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert (found["low"], found["high"]) == pytest.approx(theirs, abs=0.1)
    alone = estimate([np.array([value]) for value in np.concatenate(groups)], 4000, 0)
    assert found["high"] - found["low"] > 2.5 * (alone["high"] - alone["low"]), (
        "images of one person are not independent"
    )


def test_fast_and_general_bootstrap_agree_and_repeat():
    groups = [np.array([1.0, 2]), np.array([5.0]), np.array([0.0, 0, 3])]
    assert estimate(groups, 500, 3) == estimate(groups, 500, 3, lambda values: float(np.mean(values)))


def test_correlation():
    x = np.arange(10.0)
    assert correlation(np.stack([x, 3 * x + 1], 1)) == pytest.approx(1) and correlation(
        np.stack([x, -x], 1)
    ) == pytest.approx(-1)
    assert correlation(np.stack([np.ones(10), x], 1)) == 0


def at(degrees: float) -> np.ndarray:
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])


def test_copy_paste_is_one_on_the_reference_minus_one_on_the_other_photo_and_nought_between():
    r, t = at(0), at(40)
    assert identity.copy_paste(r, r, t) == pytest.approx(1)
    assert identity.copy_paste(t, r, t) == pytest.approx(-1)
    assert identity.copy_paste(at(20), r, t) == pytest.approx(0)
    assert identity.copy_paste(3 * at(10), r, t) == pytest.approx(0.5), "(30 - 10) / 40, whatever the vectors' lengths"
    assert identity.copy_paste(None, r, t) == 1, "a missing face is the worst case, not a skipped row"
    assert np.isfinite(identity.copy_paste(at(5), r, r)), "twice the same photo does not divide by nought"


def test_rank_one_on_toy_embeddings():
    gallery = {
        "ann": identity.template([at(0), at(20)]),
        "bob": identity.template([at(90)]),
        "eve": identity.template([at(180)]),
    }
    assert np.allclose(gallery["ann"], at(10))
    assert identity.identified(at(40), "ann", gallery) and not identity.identified(at(60), "ann", gallery)
    assert identity.identified(at(60), "bob", gallery) and not identity.identified(None, "ann", gallery)


def look(degrees: float, yaw: float = 0.0, score: float = 1.0, sharpness: float = 1.0) -> Look:
    return Look(at(degrees), at(-degrees), yaw, 0.0, score, sharpness)


@pytest.fixture
def gallery():
    def known(degrees, yaw):
        photos = [look(degrees + 10), look(degrees + 20)]
        return measure.Known(
            look(degrees, yaw),
            photos[0],
            {name: identity.template([getattr(one, name) for one in photos]) for name in ("filter", "second")},
            photos,
        )

    return measure.Gallery({"ann": known(0, -20), "bob": known(90, 20)}, sharpness=2.0)


def test_values_go_person_by_person_and_a_missing_face_fails_everywhere(gallery):
    values = measure.face_values([look(0), look(100), NOTHING], ["ann", "bob", "bob"], gallery)
    assert values["identity"] == pytest.approx([1, np.cos(np.radians(10)), 0])
    assert values["identity_other"] == pytest.approx([np.cos(np.radians(10)), 1, 0])
    assert values["copy_paste"] == pytest.approx([1, -1, 1])
    assert values["top1"].tolist() == values["top1_filter"].tolist() == [1, 1, 0]
    assert values["face_found"].tolist() == [1, 1, 0]
    assert values["sharpness"].tolist() == [0.5, 0.5, 0]
    swapped = measure.face_values([look(0)], ["bob"], gallery)
    assert swapped["top1"] == [0] and swapped["identity"] == pytest.approx([0], abs=1e-9), "never matched across people"


def test_metrics_and_gains(gallery):
    people = ["ann", "ann", "bob", "bob"]
    stage = measure.face_values([look(0, -20), look(0, -20), look(90, 20), look(90, 20)], people, gallery)
    base = measure.face_values([look(45), NOTHING, look(45), look(45)], people, gallery)
    gain = measure.gains(stage, base, "_gain", people, 200, 0)
    assert gain["identity_gain"]["value"] == pytest.approx(1 - 0.75 * np.cos(np.radians(45)), abs=1e-5)
    assert gain["identity_gain"]["low"] > 0 and "prompt_alignment_gain" not in gain
    spread = measure.diversity(
        [look(0, -20), look(0, -10), look(90, 20), look(90, 10)],
        people,
        gallery,
        {"expression": ["sad", "sad", "sad", "angry"]},
    )
    found = measure.metrics(stage, people, spread, 200, 0)
    assert found["identity"] == {"value": 1, "low": 1, "high": 1, "n": 4}
    assert found["yaw_spread"]["value"] == 5 and found["expression_spread"]["value"] == 0.75
    assert found["yaw_follows_reference"]["value"] > 0.9, "outputs that turn as their references do are caught"


def test_real_photos_are_a_ceiling_that_leaves_the_photo_itself_out(gallery):
    subject = type("Subject", (), {"person": "ann"})
    [values] = measure.real_values([subject], gallery)
    assert values["top1"].tolist() == [1, 1] and values["identity_other"] == pytest.approx([np.cos(np.radians(10))] * 2)


def test_pairs_are_of_different_people_and_each_comes_before_one_comes_again():
    pairs = together.choose(5, 14, seed=3)
    assert pairs == together.choose(5, 14, seed=3) != together.choose(5, 14, seed=4)
    unordered = [frozenset(pair) for pair in pairs]
    assert len(set(unordered[:10])) == 10 and len(unordered) == 14 and all(len(pair) == 2 for pair in unordered)
    assert any(a > b for a, b in pairs), "either of two stands at the left now and then"
    assert together.choose(5, 0, seed=3) == []


def test_two_people_are_both_to_be_nearer_to_their_own_reference():
    references = look(0), look(90)
    right, swapped = [look(20), look(70)], [look(70), look(20)]
    assert together.resembles(right, references) == {"together_faces": 1, "together": 1, "together_filter": 1}
    assert together.resembles(swapped, references) == {"together_faces": 1, "together": 0, "together_filter": 0}
    assert together.resembles([look(20), look(30)], references)["together"] == 0, "one of them is not enough"
    assert together.resembles(right[:1], references) == {"together_faces": 0, "together": 0, "together_filter": 0}


def test_prompts_speak_of_the_shot_alone_and_use_every_value_evenly():
    found = prompts(12, 0)
    assert found == prompts(12, 0) != prompts(12, 1)
    for name in ASKED:
        counts = Counter(prompt.attributes[name] for prompt in found)
        assert (
            set(counts) <= set(lexicon.LEXICON[name])
            and max(counts.values()) - min(counts.get(value, 0) for value in lexicon.LEXICON[name]) <= 1
        )
    for prompt in found:
        said = lexicon.find(prompt.text)
        assert not set(said) & set(lexicon.PERSON) and said["pose"][0] == prompt.attributes["pose"], prompt.text


def photo(name, person, split="test", verdict="accepted"):
    return {"id": name, "person": person, "split": split, "verdict": verdict}


def test_subjects_are_held_out_people_with_another_photo():
    rows = [photo(f"{person}{i}", person) for person in ("ann", "bob", "eve") for i in range(3)]
    rows += [
        photo("x", "one photo only"),
        photo("t1", "tom", "train"),
        photo("t2", "tom", "train"),
        photo("a9", "ann", verdict="rejected"),
    ]
    found = subjects(rows, 2, 0)
    assert found == subjects(rows[::-1], 2, 0) and len(found) == 2
    everyone = subjects(rows, 99, 0)
    assert [one.person for one in everyone] == ["ann", "bob", "eve"]
    for one in everyone:
        assert one.other in one.gallery and one.reference not in one.gallery and len(one.gallery) == 2
    with pytest.raises(UserError, match="at least two test people"):
        subjects(rows[:3], 2, 0)


def test_noise_depends_on_the_cell_alone():
    assert cell_seed(0, "ann", 1, 0) == cell_seed(0, "ann", 1, 0) != cell_seed(0, "ann", 1, 1)
    assert len({cell_seed(s, p, q, n) for s in (0, 1) for p in "ab" for q in range(5) for n in range(2)}) == 40


def test_probe_scores_compare_with_what_the_prompt_asked():
    asked = [
        Prompt("", {"expression": "sad", "garment": "suit", "garment_colour": "blue"}),
        Prompt("", {"expression": "angry", "garment": "suit", "garment_colour": "red"}),
    ]
    seen = {"expression": ["sad"] * 2, "garment": ["suit"] * 2, "garment_colour": ["red"] * 2}
    scores = probe_scores(seen, asked)
    assert {name: values.tolist() for name, values in scores.items()} == {
        "probe_expression": [1, 0],
        "probe_clothing": [0.5, 1],
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.set_num_threads(1)
    return tiny_base(tmp_path_factory.mktemp("base"))


def test_clip_scores_do_not_depend_on_order_or_batch(folder):
    settings = params.parse(tiny_settings(folder), "tiny")
    clip = Clip(load_base(settings.base), None, torch.device("cpu"))
    images = [np.random.default_rng(i).integers(0, 255, (64, 64, 3), np.uint8) for i in range(3)]
    scores = clip.score(images, ["a", "b", "a"])
    assert clip.score(images[::-1], ["a", "b", "a"][::-1])[::-1] == pytest.approx(scores, abs=1e-5)
    assert clip.score(images[1:2], ["b"]) == pytest.approx(scores[1:2], abs=1e-5) and (np.abs(scores) <= 1).all()


@pytest.fixture
def tiny_project(folder, tmp_path, monkeypatch):
    """Real photographs of five people, three of them held out, and four bundles of a tiny random model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracking.run.store, "connect", refuse)
    settings = tiny_settings(folder)
    settings["evaluate"] |= {
        "people": 3,
        "prompts": 2,
        "batch": 4,
        "bootstrap": 20,
        "probes": None,
        "together": 4,
    }
    settings["draw"]["steps"] = 2
    settings = params.parse(settings, "tiny")
    att_faces.write(settings, {"s1": "train", "s2": "train", "s3": "test", "s4": "test", "s5": "test"})
    model = Personaliser(load_base(settings.base), settings.model)
    for stage in (1, 2, 3, 4):
        bundle.save(model, settings.bundle_dir(stage), {"stage": stage})
    return settings


def refuse():
    raise ConnectionError("tests keep no runs")


def is_marked(png):
    """Whether a PNG validates as signed, and says that it, or part of it, was drawn."""
    import c2pa

    with c2pa.Reader("image/png", io.BytesIO(png)) as reader:
        return reader.get_validation_state() == "Valid" and "rainedAlgorithmicMedia" in reader.json()


def test_the_whole_stage_twice_gives_the_same_files(tiny_project, monkeypatch):
    from iy.evaluate.run import run

    monkeypatch.delenv("SOURCE_DATE_EPOCH")

    def files():
        report = tiny_project.report_dir("evaluate")
        return {
            str(path.relative_to(report)): path.read_bytes() for path in sorted(report.rglob("*")) if path.is_file()
        }

    run(tiny_project)
    first = files()
    metrics = json.loads(first["metrics.json"])
    assert set(metrics) == {"base", "stage1", "stage2", "stage3", "stage4", "real"}
    assert all(set(found) == {"value", "low", "high", "n"} for row in metrics.values() for found in row.values())
    assert {metrics["stage4"][name]["n"] for name in ("together", "together_filter", "together_faces")} == {4}
    assert (
        metrics["stage4"]["identity"]["n"] == 6
        and metrics["stage4"]["prompt_alignment"] == metrics["stage4"]["clip_score"]
    )
    assert metrics["real"]["top1"]["value"] == metrics["real"]["top1_filter"]["value"] == 1, (
        "photographs are recognised"
    )
    assert metrics["real"]["identity"]["value"] > 0.4
    cells = pq.read_table(tiny_project.report_dir("evaluate") / "cells.parquet").to_pylist()
    assert len(cells) == 5 * 6 and len({cell["person"] for cell in cells}) == 3
    assert {
        "index.html",
        "plots/trade_off.png",
        "plots/metrics.csv",
        "images/person-00.png",
        "images/base/00000.tar",
    } <= set(first)
    with tarfile.open(fileobj=io.BytesIO(first["images/stage4/00000.tar"])) as tar:
        exported = [tar.extractfile(one).read() for one in tar]
    assert len(exported) == 6 and all(map(is_marked, [*exported, first["images/person-00.png"]]))
    run(tiny_project)
    assert files() == first


def test_the_recogniser_that_filters_may_not_judge(tiny_project):
    from iy.evaluate.look import Observer

    settings = tiny_project.model_copy(
        update={"evaluate": tiny_project.evaluate.model_copy(update={"second_recogniser": "dlib"})}
    )
    with pytest.raises(UserError, match="'dlib' is the one that filters"):
        Observer(settings)


def test_the_pretrained_bundle_is_drawn_beside_base_and_stages_when_stage_1_begins_with_it(tiny_project):
    from iy.evaluate.run import models

    finetune = tiny_project.finetune.model_copy(update={"init": "pretrained", "pretrained": "some/bundle"})
    begun = tiny_project.model_copy(update={"finetune": finetune})
    assert list(models(begun)) == ["base", "pretrained", "stage1", "stage2", "stage3", "stage4"]
    assert models(begun)["pretrained"] == Path("some/bundle") and models(begun)["base"] is None
    fresh = tiny_project.model_copy(update={"finetune": finetune.model_copy(update={"init": "none"})})
    assert "pretrained" not in models(fresh)
