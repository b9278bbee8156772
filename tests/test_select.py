"""Ranking by hand-made rows, and people's decisions over it."""

import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iy import records, tracking
from iy.errors import UserError
from iy.params import parse
from iy.select import decisions
from iy.select.rank import best_pairs, best_photos
from iy.select.run import run
from tests.tiny import tiny_settings


def photo(key: str, person: str, quality: float | None, **more: object) -> dict:
    return {
        "id": key,
        "person": person,
        "quality": quality,
        "split": "train",
        "licence": "CC-BY-4.0",
        "consent": "signed",
        "verdict": "accepted",
        "shard": "0.tar",
        "attributes": "{}",
    } | more


def pair(key: str, person: str, *similarity: float, **more: object) -> dict:
    return {
        "id": key,
        "person": person,
        "reference": f"{person}1",
        "licence": "CC-BY-4.0",
        "consent": "signed",
        "similarity": list(similarity),
        "shard": "0.tar",
        "kept_pass": len(similarity) - 1,
        "verdict": "accepted",
        "decided_by": "automatic",
    } | more


PHOTOS = [
    photo("a1", "a", 0.9),
    photo("a2", "a", 0.8),
    photo("a3", "a", 0.7),
    photo("b1", "b", 0.3),
    photo("b2", "b", 0.2),
    photo("b3", "b", 0.1),
    photo("c1", "c", 0.95),
    photo("c2", "c", None),
]


def test_best_photos_by_quality_with_two_of_everybody_where_they_fit():
    assert best_photos(PHOTOS, 0.25, set()) == {"a1", "a2"}, (
        "two photos of one person serve training, two singles do not"
    )
    assert best_photos(PHOTOS, 0.75, set()) == {"a1", "a2", "b1", "b2", "c1", "c2"}
    assert best_photos(PHOTOS, 0.87, set()) == {"a1", "a2", "b1", "b2", "c1", "c2", "a3"}
    assert best_photos(PHOTOS, 0.25, {"b3", "c2", "b1"}) == {"b3", "c2", "b1"}, "people's choices come before the share"
    assert best_photos(PHOTOS, 0.0, set()) == set() and len(best_photos(PHOTOS, 1.0, set())) == 8


def test_ranking_does_not_depend_on_the_order_of_rows():
    for seed in range(5):
        mixed = random.Random(seed).sample(PHOTOS, len(PHOTOS))
        assert best_photos(mixed, 0.5, set()) == best_photos(PHOTOS, 0.5, set())


def test_best_pairs_spread_over_people_by_final_similarity():
    rows = [
        pair("a1", "a", 0.1, 0.9),
        pair("a2", "a", 0.95, 0.8),
        pair("a3", "a", 0.7),
        pair("b1", "b", 0.2, 0.4),
        pair("b2", "b", 0.3),
    ]
    assert best_pairs(rows, 0.4, set()) == {"a1", "b1"}
    assert best_pairs(rows, 0.6, set()) == {"a1", "b1", "a2"}, "0.95 was before refinement: it does not count"
    assert best_pairs(rows, 0.4, {"b2"}) == {"b2", "a1"}


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracking.run, "start", lambda *_: (tracking.StageRun(None, None), None))  # not the subject here
    more = [
        photo("a4", "a", 0.99, verdict="rejected", reason="two faces"),
        photo("gone", "a", None, verdict="rejected", reason="truncated", shard=None),
        photo("t1", "t", 0.99, split="test"),
        photo("a1", "a", 0.99, verdict="rejected", reason="the same file as a1.jpg", split=None),
    ]
    pairs = [pair("pa", "a", 0.5), pair("pb", "b", 0.6), pair("pb2", "b", 0.7, verdict="rejected", reason="copy-paste")]
    settings(tmp_path)
    records.write("data/tiny/curate/photos.parquet", PHOTOS + more, records.PHOTO)
    records.write("data/tiny/synpairs/pairs.parquet", pairs, records.PAIR)
    return tmp_path


def settings(folder, file: str | None = None, review: str = "optional"):
    value = tiny_settings(folder)
    value["select"] = {"real_share": 0.5, "pair_share": 0.5, "decisions": file, "review": review}
    return parse(value, "tiny")


def table(name: str, schema) -> dict[str, dict]:
    return {row["id"]: row for row in records.read(f"data/tiny/select/{name}.parquet", schema)}


def test_every_train_row_is_there_with_a_verdict_and_a_reason(project):
    run(settings(project))
    real, pairs = table("real", records.PHOTO), table("pairs", records.PAIR)
    assert set(real) == {row["id"] for row in PHOTOS} | {"a4", "gone"}, "the test person's photo is left out"
    assert sum(row["verdict"] == "accepted" for row in real.values()) == 4
    assert real["a4"]["reason"] == "two faces" and real["b3"]["reason"] == "not among the best 50%"
    assert [pairs[key]["verdict"] for key in ("pa", "pb", "pb2")] == ["rejected", "accepted", "rejected"]
    assert pairs["pb2"]["reason"] == "copy-paste"
    first = (project / "data/tiny/select/real.parquet").read_bytes()
    run(settings(project))
    assert (project / "data/tiny/select/real.parquet").read_bytes() == first


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_people_override_the_ranking(project, kind):
    decided = [
        ("a4", "accepted", "ana", "it is her"),
        ("a1", "rejected", "ben", "eyes closed, blurred"),
        ("pb", "rejected", "ana", ""),
        ("pb2", "accepted", "ana", "fine"),
        ("pb2", "accepted", "ben", ""),
    ]
    path = project / f"decisions.{kind}"
    if kind == "csv":
        lines = [
            "id,verdict,reviewer,reason",
            *(f'{key},{verdict},{who},"{why}"' for key, verdict, who, why in decided),
        ]
        path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    else:
        pq.write_table(pa.Table.from_pylist([dict(zip(decisions.COLUMNS, row, strict=True)) for row in decided]), path)
    run(settings(project, str(path)))
    real, pairs = table("real", records.PHOTO), table("pairs", records.PAIR)
    assert (real["a4"]["verdict"], real["a4"]["reason"]) == ("accepted", "accepted by ana: it is her")
    assert (real["a1"]["verdict"], real["a1"]["reason"]) == ("rejected", "rejected by ben: eyes closed, blurred")
    assert (pairs["pb"]["verdict"], pairs["pb"]["decided_by"]) == ("rejected", "ana")
    assert (pairs["pb2"]["verdict"], pairs["pb2"]["decided_by"], pairs["pb2"]["reason"]) == (
        "accepted",
        "ana, ben",
        "fine",
    )
    assert pairs["pa"]["verdict"] == "rejected", "one of two is the share, and ana's choice fills it"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a1,maybe,ana,x", "line 2: verdict 'maybe'"),
        (",accepted,ana,x", "line 2: id is empty"),
        ("a1,accepted,,x", "line 2: reviewer is empty"),
        ("a1,accepted,ana", "line 2: expected 4 values"),
        ("a1,accepted,ana,x,y", "line 2: expected 4 values"),
        ("zz,accepted,ana,x", "line 2: zz is neither a photo nor a pair"),
        ("a1,accepted,ana,x\na1,rejected,ben,y", "line 3: a1 is rejected, but accepted in line 2"),
        ("t1,accepted,ana,x", "line 2: t1 belongs to the test people"),
        ("gone,accepted,ana,x", "line 2: gone has no image"),
    ],
)
def test_a_bad_row_is_named(project, rows, message):
    path = project / "decisions.csv"
    path.write_text(f"id,verdict,reviewer,reason\n{rows}\n")
    with pytest.raises(UserError, match=message):
        run(settings(project, str(path)))


@pytest.mark.parametrize(
    ("usage", "said", "why"),
    [
        ("commercial", {"licence": "CC-BY-NC-4.0"}, "licence CC-BY-NC-4.0 does not allow usage: commercial"),
        ("research", {"consent": "withdrawn"}, "consent withdrawn"),
        ("research", {"licence": "CC-BY-NC-4.0"}, None),
    ],
)
@pytest.mark.parametrize("kind", ["photos", "pairs"])
def test_nobody_can_accept_what_the_licence_or_consent_forbids(project, usage, said, why, kind):
    one = photo("nc", "a", 0.5, verdict="rejected", **said) if kind == "photos" else pair("nc", "a", 0.9, **said)
    place, schema = {"photos": ("curate", records.PHOTO), "pairs": ("synpairs", records.PAIR)}[kind]
    path = project / f"data/tiny/{place}/{kind}.parquet"
    records.write(path, [*records.read(path, schema), one | {"verdict": "rejected"}], schema)
    (project / "d.csv").write_text("id,verdict,reviewer,reason\nnc,accepted,ana,\n")
    chosen = settings(project, "d.csv").model_copy(update={"usage": usage})
    if why is None:
        return run(chosen)
    with pytest.raises(UserError, match=f"line 2: nc must not be accepted: {why}"):
        run(chosen)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "does not exist"),
        ("d.xlsx", b"x", "must end in .csv or .parquet"),
        (
            "d.csv",
            b"id,verdict,who,reason\n",
            "columns must be id, verdict, reviewer, reason; found id, verdict, who, reason",
        ),
        ("d.csv", b"", "found none"),
        ("d.csv", b"\xff\xfe\x00", "UTF-8"),
        ("d.parquet", b"nothing", "not a readable parquet"),
    ],
)
def test_a_bad_file_is_named(project, name, content, message):
    if content is not None:
        (project / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        run(settings(project, str(project / name)))


def test_decisions_of_pairs_that_are_no_longer_made_are_passed_over_and_counted(project, caplog):
    path = project / "decisions.csv"
    path.write_text("id,verdict,reviewer,reason\nold,accepted,ana,x\na1,rejected,ana,y\n")
    with caplog.at_level("WARNING"):
        run(settings(project, str(path)))
    assert "1 of 2 decisions" in caplog.text and "line 2" in caplog.text
    assert table("real", records.PHOTO)["a1"]["verdict"] == "rejected"


def test_where_people_must_decide_nothing_is_selected_before_they_have(project):
    with pytest.raises(UserError, match="required needs select.decisions"):
        run(settings(project, review="required"))
    accepted = [row["id"] for row in PHOTOS] + ["pa", "pb"]
    for missing in (1, 0):
        lines = [f"{key},accepted,ana," for key in accepted[missing:]]
        (project / "d.csv").write_text("\n".join(["id,verdict,reviewer,reason", *lines]) + "\n")
        wanted = settings(project, "d.csv", "required")
        if missing:
            with pytest.raises(
                UserError, match=rf"1 of {len(accepted)} photos and pairs are not decided: judge them with `iy review`"
            ):
                run(wanted)
        else:
            run(wanted)
            assert {key for key, row in table("pairs", records.PAIR).items() if row["verdict"] == "accepted"} == {
                "pa",
                "pb",
            }
