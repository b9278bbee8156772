"""Curate: each rule, then whole collections through the real face models."""

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import v_measure_score

from iy import params, records
from iy.curate import calibrate, captions, collection, duplicates, filters, group, neighbours, split
from iy.curate.collection import Collection
from iy.errors import UserError
from iy.faces.recognise import unit
from iy.records import ACCEPTED, REJECTED
from tests.curating import settings

GOOD = {
    "verdict": None,
    "reason": None,
    "width": 100,
    "height": 100,
    "faces": 1,
    "face_size": 50.0,
    "sharpness": 200.0,
    "clipped": 0.1,
    "box": [25.0, 25.0, 75.0, 75.0],
    "yaw": 0.0,
    "pitch": 0.0,
    "roll": 0.0,
    "licence": "CC0-1.0",
    "consent": "given",
    "quality": 0.5,
    "label": None,
    "caption": None,
}


def curate(**changes) -> params.Curate:
    return settings(**changes).curate


def row(name: str, **changes) -> dict:
    return GOOD | {"id": records_id(name), "uri": name, "phash": "0" * 16, "embedding": [1.0, 0.0]} | changes


def records_id(name: str) -> str:
    from iy.storage import sha256

    return sha256(name.encode())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"width": 30}, "too small: shorter side 30"),
        ({"faces": 0}, "no face found"),
        ({"faces": 2}, "2 faces of similar size"),
        ({"face_size": 10.0}, "face too small: 10 px"),
        ({"sharpness": 3.0}, "blurred: sharpness 3.0"),
        ({"clipped": 0.7}, "badly exposed: 70% of the face clipped"),
        ({"box": [1.0, 1.0, 9.0, 9.0]}, "face too small in the photo: 0.6% of it"),
        ({"yaw": -80.0}, "yaw -80"),
        ({"pitch": 70.0}, "pitch 70"),
        ({"consent": None}, "no consent"),
        ({"consent": ""}, "no consent"),
    ],
)
def test_each_flaw_has_its_reason(change, says):
    judged = filters.judge(row("a", **change), curate(), "research")
    assert judged["verdict"] == REJECTED and says in judged["reason"]
    assert filters.judge(row("a"), curate(), "research")["verdict"] == ACCEPTED


def test_a_reason_given_before_stays():
    before = row("a", verdict=REJECTED, reason="broken", faces=None)
    assert filters.judge(before, curate(), "research") == before


@pytest.mark.parametrize(
    ("licence", "fine"),
    [
        ("CC0-1.0", True),
        ("CC-BY-4.0", True),
        ("CC-BY-NC-4.0", False),
        ("unknown", False),
        (None, False),
        ("research only", False),
        ("ncsa", True),
    ],
)
def test_commercial_use_refuses_by_licence(licence, fine):
    judged = filters.judge(row("a", licence=licence), curate(), "commercial")
    assert (judged["verdict"] == ACCEPTED) == fine and (fine or "does not allow usage: commercial" in judged["reason"])
    assert filters.judge(row("a", licence=licence), curate(), "research")["verdict"] == ACCEPTED


@pytest.fixture
def decided(tmp_path):
    """`decided(rows, work)`: the rows after `work(their collection)`, read from two parts as the stage does."""

    def after(rows: list[dict], work: Callable[[Collection], object]) -> list[dict]:
        parts = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
        for part, some in zip(parts, (rows[:2], rows[2:]), strict=True):
            records.write(part, some, records.PHOTO)
        photos = collection.read(parts)
        photos.person = [one.get("person") for one in rows]
        work(photos)
        return [one for some in collection.finished(parts, photos) for one in some]

    return after


def test_copies_name_the_photo_that_stays(decided):
    ok = {"verdict": ACCEPTED}
    rows = [
        row("first", **ok),
        row("again", **ok) | {"id": records_id("first")},
        row("near", phash=f"{0b111:016x}", quality=0.9, **ok),
        row("far hash", phash="f" * 16, **ok),
        row("other face", embedding=[0.0, 1.0], **ok),
    ]
    original = {}
    wanted = curate(duplicate_bits=3, duplicate_similarity=0.9)
    judged = decided(rows, lambda photos: original.update(duplicates.reject_copies(photos, wanted)))
    assert original == {0: 2, 1: 2}
    assert [one["reason"] for one in judged] == ["near duplicate of near", "the same file as first", None, None, None]


@given(st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=12), st.integers(0, 66), st.randoms())
def test_near_pairs_are_all_those_within_so_many_bits(some, bits, rng):
    """Compared with comparing all with all; half of the hashes are others with a few bits turned."""
    hashes = some + [
        one ^ sum(1 << k for k in rng.sample(range(64), min(64, rng.randint(0, bits + 2)))) for one in some
    ]
    found = {
        tuple(pair) for pairs in duplicates.near_pairs(np.array(hashes, np.uint64), bits) for pair in pairs.tolist()
    }
    assert found == {
        (i, j) for j in range(len(hashes)) for i in range(j) if (hashes[i] ^ hashes[j]).bit_count() <= bits
    }


def test_grouping_finds_persons_keeps_labels_and_refuses_the_lonely(decided):
    rng = np.random.default_rng(0)
    centres = np.linalg.qr(rng.normal(size=(16, 4)))[0].T
    faces = [(k, (centres[k] + rng.normal(0, 0.03, 16)).tolist()) for k in (2, 0, 2, 1, 0, 2, 3)]
    rows = [
        row(str(i), embedding=face, verdict=ACCEPTED, label="ada" if k == 1 else None)
        for i, (k, face) in enumerate(faces)
    ]
    rows.append(rows[3] | {"uri": "7"})
    grouped = decided(rows, lambda photos: group.group(photos, curate(), 0.8))
    assert [one["person"] for one in grouped] == [
        "group-0001",
        "group-0002",
        "group-0001",
        "ada",
        "group-0002",
        "group-0001",
        "group-0003",
        "ada",
    ]
    assert [one["verdict"] for one in grouped].count(REJECTED) == 1 and "only 1 usable" in grouped[6]["reason"]
    only_labels = decided(rows, lambda photos: group.group(photos, curate(grouping="label"), 0.8))
    assert sum("curate.grouping is label" in (one["reason"] or "") for one in only_labels) == 6
    by_face = decided(rows, lambda photos: group.group(photos, curate(grouping="embedding"), 0.8))
    assert by_face[3]["person"] == by_face[7]["person"] != "ada"


def test_a_photo_under_a_wrong_label_is_rejected_with_both_similarities_unless_labels_are_kept(decided):
    faces = {"ada": [0, 3, 6, 88], "bob": [90, 93, 96]}
    rows = [
        row(
            f"{who}{angle}",
            label=who,
            verdict=ACCEPTED,
            embedding=[np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))],
        )
        for who, angles in faces.items()
        for angle in angles
    ]
    grouped = decided(rows, lambda photos: group.group(photos, curate(), 0.8))
    assert [one["uri"] for one in grouped if one["verdict"] == REJECTED] == ["ada88"]
    assert grouped[3]["reason"].startswith("resembles bob more (0.99") and "of ada (0.08" in grouped[3]["reason"]
    kept = decided(rows, lambda photos: group.group(photos, curate(wrong_names="keep"), 0.8))
    assert all(one["verdict"] == ACCEPTED for one in kept)


def test_clustering_by_components_equals_clustering_at_once():
    from sklearn.cluster import AgglomerativeClustering

    rng = np.random.default_rng(1)
    faces = unit(np.repeat(rng.normal(size=(12, 6)), 8, 0) + rng.normal(0, 0.5, (96, 6)))
    for threshold in (0.6, 0.8, 0.9):
        whole = AgglomerativeClustering(
            None, metric="cosine", linkage="average", distance_threshold=1 - threshold
        ).fit_predict(faces)
        assert v_measure_score(whole, group.cluster(faces, threshold)) == pytest.approx(1)


@pytest.mark.parametrize("exact", [1000, 100], ids=["all with all", "by the index"])
def test_neighbours_are_the_pairs_at_the_threshold(monkeypatch, exact):
    monkeypatch.setattr(neighbours, "EXACT", exact)
    rng = np.random.default_rng(2)
    faces = unit(np.repeat(rng.normal(size=(60, 32)), 10, 0) + rng.normal(0, 0.4, (600, 32)))
    found, right = neighbours.neighbours(faces, 0.8).toarray(), faces @ faces.T >= 0.8
    assert (found <= right).all() and right.sum() > 3000, "no pair below the threshold"
    assert found[right].mean() == 1 if exact > 600 else found[right].mean() > 0.98
    assert v_measure_score(np.repeat(np.arange(60), 10), group.cluster(faces, 0.6)) > 0.99


def people(count: int) -> list[dict]:
    return [row(f"{name}-{k}", person=f"p{name}", verdict=ACCEPTED) for name in range(count) for k in range(2)]


def alone(first: int, last: int) -> list[dict]:
    return [row(f"{name}-0", person=f"p{name}", verdict=ACCEPTED) for name in range(first, last)]


@pytest.mark.parametrize(("count", "expected"), [(40, (4, 12)), (10, (1, 4)), (5, (1, 2))])
def test_splits_are_by_person_and_shrink_for_small_collections(count, expected, caplog, decided):
    caplog.set_level(logging.INFO)
    wanted = curate(validation_people=4, test_people=12)
    done = decided(people(count), lambda photos: split.split(photos, wanted, 0))
    where = {name: {one["split"] for one in done if one["person"] == name} for name in {one["person"] for one in done}}
    assert all(len(splits) == 1 for splits in where.values())
    sizes = Counter(splits.pop() for splits in where.values())
    assert (sizes["validation"], sizes["test"]) == expected and sizes["train"] == count - sum(expected) >= 2
    assert ("too few" in caplog.text) == (expected != (4, 12))
    assert done == decided(people(count), lambda photos: split.split(photos, wanted, 0))
    if count == 40:
        assert done != decided(people(count), lambda photos: split.split(photos, wanted, 1))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (people(4), "4 person.* at least 5 are needed .*add photos of 1 more person"),
        ([*people(1), *alone(1, 9)], "1 person.* 2 or more usable"),
    ],
    ids=["persons", "photos of each"],
)
def test_what_evaluation_needs_is_asked_for_before_anything_is_trained(decided, rows, words):
    with pytest.raises(UserError, match=words):
        decided(rows, lambda photos: split.split(photos, curate(), 0))


def test_somebody_with_a_single_photo_trains(decided):
    rows = [*people(3), *alone(3, 9)]
    done = decided(rows, lambda photos: split.split(photos, curate(), 0))
    tested = Counter(one["person"] for one in done if one["split"] == "test")
    assert len(tested) == 2 and set(tested.values()) == {2}


@pytest.mark.parametrize(
    ("angles", "word"),
    [
        ((0, 0, 0), "frontal"),
        ((-30, 0, 0), "left"),
        ((30, 0, 0), "right"),
        ((0, 25, 0), "up"),
        ((0, -25, 0), "down"),
        ((-30, 25, 0), "up-left"),
        ((0, 0, 20), "tilt-right"),
        ((0, 0, -20), "tilt-left"),
    ],
)
def test_plain_captions_say_the_pose(angles, word):
    from iy import lexicon

    said = captions.plain(row("x") | dict(zip(("yaw", "pitch", "roll"), angles, strict=True)))
    assert lexicon.find(said)["pose"][0] == word and "person" in said


def test_captioners(tmp_path):
    rows = [
        row("a", verdict=ACCEPTED, caption="mine"),
        row("b", verdict=ACCEPTED),
        row("c", verdict=REJECTED, reason="x"),
    ]
    auto = captions.caption(rows, tmp_path, settings(), tmp_path / "said.json")
    assert auto[0]["caption"] == "mine" and auto[1]["caption"] and auto[2]["caption"] is None
    sidecar = captions.refuse_silent(rows, curate(captioner="sidecar"))
    assert captions.refuse_silent(rows, curate()) == rows
    assert sidecar[1]["verdict"] == REJECTED and "no caption beside it" in sidecar[1]["reason"]
    with pytest.raises(UserError, match="needs curate.caption_model"):
        captions.caption(rows, tmp_path, settings(captioner="transformers"), tmp_path / "said.json")
    with pytest.raises(UserError, match="nowhere cannot be opened"):
        captions.caption(
            rows,
            tmp_path,
            settings(captioner="transformers", caption_model=str(tmp_path / "nowhere")),
            tmp_path / "said.json",
        )


def tiny_blip(folder: Path) -> Path:
    """A real BLIP captioner of random weights that knows four words."""
    import torch
    from transformers import (
        BertTokenizerFast,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "man", "woman", "portrait"]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = BlipConfig(
        projection_dim=16,
        vision_config=small | {"image_size": 32, "patch_size": 8},
        text_config=small
        | {
            "vocab_size": len(vocabulary),
            "encoder_hidden_size": 16,
            "projection_dim": 16,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "sep_token_id": 3,
            "pad_token_id": 0,
        },
    )
    BlipForConditionalGeneration(config).save_pretrained(folder / "blip")
    looks, words = BlipImageProcessor(size={"height": 32, "width": 32}), BertTokenizerFast(str(folder / "vocab.txt"))
    BlipProcessor(looks, words).save_pretrained(folder / "blip")
    return folder / "blip"


def test_a_transformers_model_captions_what_has_no_caption(tmp_path):
    from iy.storage import png, write_shard

    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    place = write_shard(tmp_path / "00000.tar", [("a.png", png(image))])[0]._asdict()
    rows = [row("a", verdict=ACCEPTED, **place), row("b", verdict=ACCEPTED, caption="mine", **place)]
    wanted = settings(captioner="transformers", caption_model=str(tiny_blip(tmp_path)))
    first, second = captions.caption(rows, tmp_path, wanted, tmp_path / "said.json")
    assert (
        set(first["caption"].split()) <= {"a", "man", "woman", "portrait", "person", "of"}
        and second["caption"] == "mine"
    )
    assert captions.caption(rows, tmp_path, wanted, tmp_path / "again.json")[0] == first


def test_the_interval_of_a_false_match_rate_counts_persons_not_pairs(monkeypatch):
    monkeypatch.setattr(calibrate, "RESAMPLES", 4000)
    rng = np.random.default_rng(0)
    photos = np.repeat(np.arange(20), 5)
    first, second = np.triu_indices(100, 1)
    cosine = rng.random(len(first))
    other = photos[first] != photos[second]
    match = calibrate.Match(photos, first, second, cosine)
    assert match.pairs.sum() / 2 == other.sum() and match.pairs[3, 4] == 25 and match.pairs[3, 3] == 0
    spread = np.diff(match.interval(0.9))[0]
    rate = (cosine[other] >= 0.9).mean()
    binomial = 2 * 1.96 * np.sqrt(2 * rate * (1 - rate) / other.sum())
    assert binomial < spread < 3 * binomial, "pairs that are independent: hardly wider than the formula's"
    alike = np.where((photos[first] == 0) & (photos[second] == 1), 1.0, cosine * 0.89)  # one pair of look-alikes
    low, high = calibrate.Match(photos, first, second, alike).interval(0.9)
    assert low == 0 and high > 2 * 25 / other.sum(), (
        "a collection without them, or with more of them, would surprise nobody"
    )


def test_calibration_takes_no_photo_of_a_test_person(decided):
    def check(photos: Collection) -> None:
        photos.split = ["test" if k // 2 % 3 == 0 else "train" for k in range(len(photos))]
        assert calibrate.chosen(photos) == [k for k in range(20) if k // 2 % 3]

    decided(people(10), check)


def test_calibration_takes_whole_persons_from_everywhere_in_a_large_collection(decided, monkeypatch):
    monkeypatch.setattr(calibrate, "MAXIMUM", 6)
    decided(people(10), lambda photos: check_equal(calibrate.chosen(photos), [0, 1, 8, 9, 18, 19]))


def test_calibration_tells_how_everybodys_threshold_does_within_a_subgroup():
    """Women who resemble each other more than men do pass for each other more often."""
    rng = np.random.default_rng(0)
    common, rows = rng.normal(size=64), []
    for k in range(40):
        gender = "woman" if k < 20 else "man"
        centre = rng.normal(size=64) + (common if gender == "woman" else 0)
        rows += [
            row(
                f"{k}-{i}",
                embedding=(centre + 0.2 * rng.normal(size=64)).tolist(),
                person=f"p{k}",
                label=f"p{k}",
                attributes=f'{{"gender": "{gender}"}}',
                recogniser="r@1",
            )
            for i in range(4)
        ]
    found, _, impostor = calibrate.calibrate(rows)
    groups, bound = found["subgroups"]["gender"], found["false_match"]["0.01"]["threshold"]
    women, men = (groups[name]["false_match"]["0.01"] for name in ("woman", "man"))
    assert set(found["subgroups"]) == {"gender"} and groups["man"]["genuine"] == 20 * 6
    assert groups["woman"]["impostor"] == 20 * 19 // 2 * 16
    assert (
        women["false_match"] > 0.02 > 0.005 > men["false_match"]
        and men["own_threshold"] < bound < women["own_threshold"]
    )
    whole = (impostor >= bound).mean()
    among = women["false_match"] * groups["woman"]["impostor"] + men["false_match"] * groups["man"]["impostor"]
    assert whole == pytest.approx(0.01, abs=1e-3) and among <= whole * len(impostor) + 1


def check_equal(found: object, expected: object) -> None:
    assert found == expected


def test_calibration_of_known_similarities():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(30, 32))
    rows = [
        row(
            f"{k}-{i}",
            embedding=(2 * (centres[k] + rng.normal(0, 0.3, 32))).tolist(),
            person=f"p{k}",
            label=f"p{k}",
            split="train",
            verdict=ACCEPTED,
            recogniser="r@1",
        )
        for k in range(5, 30)
        for i in range(6)
    ]
    found, genuine, impostor = calibrate.calibrate(rows)
    assert found["persons"] == 25 and found["photos"] == 150 and found["labels"] == "source" and found["auc"] > 0.999
    assert found["genuine"]["n"] == 25 * 15 and abs(found["impostor"]["median"]) < 0.1 < found["genuine"]["median"]
    bound = found["false_match"]["0.01"]
    assert abs((impostor >= bound["threshold"]).mean() - 0.01) < 0.002 and bound["true_match"] > 0.99
    assert bound["low"] <= 0.01 <= bound["high"] < 0.1
    assert found["distance"]["genuine_median"] < found["distance"]["impostor_median"]
