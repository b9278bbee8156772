"""Photographs in an S3 store are those in a folder, whatever the network does."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from iy import records, s3
from iy.errors import UserError
from iy.photos.own import own_photos
from iy.photos.run import run
from iy.storage import sha256
from tests.depth import depth
from tests.photographs import picture, settings, tar_of
from tests.s3_store import Proxy, upload

PEOPLE, EACH = 5, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twenty photos of five people, sidecars, and what no collection lacks: a broken file and hidden ones."""
    root, rng = tmp_path_factory.mktemp("collection"), np.random.default_rng(0)
    for person in range(PEOPLE):
        (root / f"p{person} ö").mkdir()
        for number in range(EACH):
            image = Image.fromarray(rng.integers(0, 255, (40, 30, 3), dtype=np.uint8))
            image.save(root / f"p{person} ö" / f"{number}.png")
        (root / f"p{person} ö" / "0.json").write_text(
            json.dumps({"caption": f"person {person}", "licence": "CC-BY-4.0"})
        )
        (root / f"p{person} ö" / "1.txt").write_text("laughing")
    (root / "p1 ö" / "3.JSON").write_text(json.dumps({"Consent": "withdrawn"}))
    (root / "p2 ö" / "0_info.json").write_text("{}")
    (root / "p4 ö" / "info.json").write_text(json.dumps([{"Licence": "CC-BY-NC-4.0"}]))
    (root / "p0 ö" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (root / "p0 ö" / "2.json").write_text("{broken")
    (root / ".hidden").mkdir()
    (root / ".hidden" / "0.png").write_bytes(b"x")
    (root / "p0 ö" / "Thumbs.db").write_bytes(b"x")
    return root


@pytest.fixture
def uploaded(store, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    upload(store, folder, "faces")
    store.put_object(Bucket="models", Key="faces/empty/", Body=b"")
    return store


def rows() -> list[dict]:
    return records.read("data/tried/photos/photos.parquet", records.PHOTO)


def take(path: str) -> list[dict]:
    run(settings(source="s3", path=path))
    return rows()


def test_a_bucket_is_read_as_a_folder_is(uploaded, folder, tmp_path):
    run(settings(source="folder", path=str(folder)))
    here = rows()
    shards = [path.read_bytes() for path in sorted((tmp_path / "data").rglob("*.tar"))]
    there = take("s3://models/faces/")
    assert len(there) == PEOPLE * EACH + 1 and {row["label"] for row in there} == {f"p{i} ö" for i in range(PEOPLE)}
    assert [row | {"uri": None} for row in there] == [row | {"uri": None} for row in here]
    assert all(row["uri"] == f"s3://models/faces/{other['uri']}" for row, other in zip(there, here, strict=True))
    assert [path.read_bytes() for path in sorted((tmp_path / "data").rglob("*.tar"))] == shards
    reasons = " ".join(row["reason"] for row in there if row["reason"])
    assert "the photo is not used" in reasons and "p2 ö/0_info.json may speak of it" in reasons
    assert sum("p4 ö/info.json speaks of licences" in (row["reason"] or "") for row in there) == EACH
    assert not (tmp_path / ".iy/resume/s3/models").exists(), "nothing is kept of what was read"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(depth(4, 20)))
def test_nothing_is_lost_or_doubled_when_a_fifth_of_the_requests_fails(uploaded, folder, tmp_path, monkeypatch, seed):
    run(settings(source="folder", path=str(folder)))
    right = [row | {"uri": None} for row in rows()]
    shutil.rmtree(tmp_path / "data")
    port = int(uploaded.meta.endpoint_url.rsplit(":", 1)[1])
    monkeypatch.setattr(s3, "READ_SECONDS", 0.6)
    proxy = Proxy(port, share=0.2, seed=seed, stall=1.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.server_port}")
    try:
        found = take("s3://models/faces")
    finally:
        proxy.shutdown()
        proxy.server_close()
    assert [row | {"uri": None} for row in found] == right
    assert sum(proxy.failed.values()) > 30 and sum(proxy.failed.values()) - proxy.failed["none"] > 2, (
        "there were faults"
    )


def test_what_was_fetched_before_a_failure_is_not_fetched_again(uploaded, tmp_path, monkeypatch):
    from iy.photos import bucket

    asked, whole = [], s3.contents

    def failing(store, name, key):
        asked.append(key)
        if key.endswith("p3 ö/1.png"):
            raise RuntimeError("killed")
        return whole(store, name, key)

    monkeypatch.setattr(bucket.s3, "contents", failing)
    with pytest.raises(RuntimeError):
        take("s3://models/faces")
    assert not (tmp_path / "data").exists() or not list((tmp_path / "data").rglob("*.parquet"))
    before, _ = len(set(asked)), asked.clear()
    monkeypatch.setattr(bucket.s3, "contents", lambda store, name, key: asked.append(key) or whole(store, name, key))
    assert len(take("s3://models/faces")) == PEOPLE * EACH + 1
    assert before > 5 and len(asked) < before and "faces/p3 ö/1.png" in asked


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (None, "photos.source: s3 needs photos.path"),
        ("s3://", "photos.path: 's3://' is not s3://bucket/folder"),
        ("/a/folder", "is not s3://bucket/folder"),
        ("s3://models/nothing", "s3://models/nothing holds no files"),
        ("s3://absent/faces", "cannot fetch s3://absent/faces: .*check the bucket and your keys"),
    ],
)
def test_a_useless_place_is_one_sentence(uploaded, path, said):
    with pytest.raises(UserError, match=said):
        take(path)


def test_a_store_that_does_not_answer_is_one_sentence(uploaded, monkeypatch):
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="photos.path: cannot fetch s3://models/faces: .*check the connection"):
        take("s3://models/faces")


def test_new_photographs_in_a_bucket_are_noticed(uploaded):
    first = own_photos("s3://models/faces")
    assert first == own_photos("s3://models/faces") and (first["photos.source"], first["photos.path"]) == (
        "s3",
        "s3://models/faces",
    )
    uploaded.put_object(Bucket="models", Key="faces/p9/new.png", Body=b"x")
    try:
        assert own_photos("s3://models/faces") != first
    finally:
        uploaded.delete_object(Bucket="models", Key="faces/p9/new.png")


def test_tars_in_a_bucket_are_read_as_here(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        tar_of(tmp_path / f"tars/{number:05d}.tar", *((f"{number}{i}.png", picture(10 * number + i)) for i in range(3)))
    upload(store, tmp_path / "tars", "tars")
    run(settings(source="webdataset", path="tars"))
    here = rows()
    for place, count in (("s3://models/tars", 6), ("s3://models/tars/00001.tar", 3)):
        assert own_photos(place)["photos.source"] == "webdataset"
        run(settings(source="webdataset", path=place))
        places = ("shard", "offset")  # in our own shards, which hold fewer photos
        assert [row | dict.fromkeys(places) for row in rows()] == [row | dict.fromkeys(places) for row in here[-count:]]
    assert not [path for path in (tmp_path / ".iy").rglob("*") if path.is_file()], "nothing is kept of what was read"


def test_a_table_may_name_objects(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some").mkdir()
    (tmp_path / "some/1.png").write_bytes(picture(1))
    upload(store, tmp_path / "some", "listed")
    (tmp_path / "people.csv").write_text(
        "uri,person\ns3://models/listed/1.png,Ada\ns3://models/listed/2.png,Ada\ns3://..,\n"
    )
    run(settings(source="table", path="people.csv"))
    one, two, three = rows()
    assert (one["label"], one["verdict"], one["id"]) == ("Ada", None, sha256(picture(1)))
    assert two["reason"].startswith("the object 2.png cannot be read") and "names no object" in three["reason"]
