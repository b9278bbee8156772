"""Photographs that lie in tars or that a table lists."""

import csv
import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from iy import pictures
from iy.errors import UserError
from iy.photos import kinds, table, tars
from iy.photos.own import own_photos
from iy.storage import sha256
from tests.photographs import picture, taken, tar_of


def rows_of_tars(path) -> list[dict]:
    return taken(tars.photos, source="webdataset", path=str(path))


def rows_of_table(path) -> list[dict]:
    return taken(table.photos, source="table", path=str(path))


def stats(caption: str | None, **more) -> bytes:
    """The JSON that img2dataset writes beside a picture."""
    return json.dumps(
        {
            "caption": caption,
            "url": "https://example.org/1.jpg",
            "key": "000000000",
            "status": "success",
            "error_message": None,
            "width": 20,
            "height": 30,
            "exif": "{}",
        }
        | more
    ).encode()


def test_samples_as_img2dataset_writes_them(tmp_path):
    tar_of(tmp_path / "00001.tar", ("000010000.png", picture(3)), ("000010000.json", stats(None)))
    tar_of(
        tmp_path / "00000.tar",
        ("000000000.png", picture(1)),
        ("000000000.txt", b"a man\n laughing"),
        ("000000000.json", stats("a man laughing")),
        ("ada/1.png", picture(2)),
        ("ada/1.json", stats(None, licence="CC-BY-4.0", person="Ada L.")),
        ("bob/7.seg.png", picture(9)),
        ("bob/7.PNG", picture(4)),
    )
    rows = rows_of_tars(tmp_path)
    assert [row["uri"] for row in rows] == [
        "00000.tar/000000000",
        "00000.tar/ada/1",
        "00000.tar/bob/7",
        "00001.tar/000010000",
    ]
    assert [row["label"] for row in rows] == [None, "Ada L.", "bob", None]
    assert [row["id"] for row in rows] == [sha256(picture(shade)) for shade in (1, 2, 4, 3)]
    assert rows[0]["caption"] == "a man laughing" and rows[1]["licence"] == "CC-BY-4.0"
    assert all(row["verdict"] is None for row in rows)


def test_a_hostile_tar_writes_nothing_and_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "LARGEST", 10_000)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in (
            ("../../escape.png", tarfile.REGTYPE),
            ("/etc/passwd.png", tarfile.REGTYPE),
            ("link.png", tarfile.SYMTYPE),
            ("pipe.png", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            data = picture(1) if kind == tarfile.REGTYPE else b""
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, data in (
            ("big.png", b"0" * 10_001),
            ("bigger.png", picture(3) + bytes(10_000)),
            ("odd.json", b"{}"),
            ("said.png", picture(2)),
            ("said.json", b"{]"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    before = sorted(tmp_path.parent.rglob("*"))
    reason = {row["uri"]: row["reason"] for row in rows_of_tars(tmp_path / "a.tar")}
    assert sorted(tmp_path.parent.rglob("*")) == before
    assert reason == {
        "a.tar/../../escape": "its name leads out of the tar",
        "a.tar//etc/passwd": "its name leads out of the tar",
        "a.tar/link": "a link, a device or the like: only files are read",
        "a.tar/pipe": "a link, a device or the like: only files are read",
        "a.tar/big": "not an image, or of a kind that is not read",
        "a.tar/bigger": f"{len(picture(3)) + 10_000} bytes: too large for a photograph, which has at most 10000",
        "a.tar/odd": "the sample has no picture",
        "a.tar/said": "its sidecar .json is not valid JSON",
    }


def test_a_tar_that_breaks_off_gives_what_is_surely_whole(tmp_path):
    parts = [part for i in range(5) for part in ((f"{i}.png", picture(i)), (f"{i}.json", b"{}"))]
    data = tar_of(tmp_path / "a.tar", *parts)
    (tmp_path / "b.tar").write_bytes(data[: 3 * 2048 + 600])
    (tmp_path / "c.tar").write_bytes(b"no tar at all" * 100)
    rows = rows_of_tars(tmp_path)
    assert [row["verdict"] for row in rows[:8]] == [None] * 8
    assert [row["uri"] for row in rows[8:]] == ["b.tar", "c.tar"]
    assert "after 3 samples" in rows[8]["reason"] and "after 0 samples" in rows[9]["reason"]


@given(st.binary(max_size=2000))
def test_any_bytes_as_a_tar_end_in_rows(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "a.tar"
    path.write_bytes(data)
    assert all(row["id"] and row["uri"].startswith("a.tar") for row in rows_of_tars(path))


@pytest.mark.parametrize("source", ["webdataset", "table"])
@pytest.mark.parametrize(
    ("path", "says"), [(None, "needs photos.path"), ("nowhere", "does not exist"), ("empty", "holds no")]
)
def test_a_useless_place_is_one_clear_line(source, path, says, tmp_path):
    (tmp_path / "empty").mkdir()
    read = {"webdataset": tars.photos, "table": table.photos}[source]
    with pytest.raises(UserError, match=says):
        taken(read, source=source, path=path and str(tmp_path / path))


def listed(root, suffix: str, rows: list[dict]):
    path = root / f"people{suffix}"
    names = sorted({name for row in rows for name in row})
    if suffix == ".csv":
        with open(path, "w", newline="") as file:
            table = csv.DictWriter(file, names)
            table.writeheader()
            table.writerows(rows)
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), path)
    return path


@pytest.mark.parametrize("suffix", kinds.TABLES)
def test_a_table_lists_photographs(suffix, tmp_path):
    (tmp_path / "faces").mkdir()
    for shade in (1, 2):
        (tmp_path / f"faces/{shade}.png").write_bytes(picture(shade))
    (tmp_path.parent / "outside.png").write_bytes(picture(3))
    (tmp_path / "link.png").symlink_to(tmp_path.parent / "outside.png")
    path = listed(
        tmp_path,
        suffix,
        [
            {
                "uri": "faces/1.png",
                "person": "Ada",
                "caption": "smiling, outdoors",
                "licence": "CC-BY-4.0",
                "consent": "signed",
                "sha256": sha256(picture(1)),
            },
            {"uri": "faces/2.png", "sha256": "0" * 64},
            {"uri": "../outside.png"},
            {"uri": "link.png"},
            {"uri": str(tmp_path.parent / "outside.png")},
            {"uri": "file:///etc/passwd"},
            {"uri": "http://169.254.169.254/latest"},
            {"uri": "faces/none.png"},
            {"person": "Bob"},
        ],
    )
    rows = rows_of_table(path)
    first = rows[0]
    assert [first[key] for key in ("uri", "label", "caption", "licence", "consent", "id", "verdict")] == [
        "faces/1.png",
        "Ada",
        "smiling, outdoors",
        "CC-BY-4.0",
        "signed",
        sha256(picture(1)),
        None,
    ]
    reasons = [row["reason"] for row in rows[1:]]
    assert reasons[0] == f"its bytes are not those that the table names: sha256 is {sha256(picture(2))}"
    assert reasons[1:4] == ["it names a file outside the table's folder"] * 3
    assert [row["uri"] for row in rows[2:4]] == ["../outside.png", "link.png"], "a refused row is known by its file"
    assert reasons[4].startswith("file:// is not fetched") and reasons[5].startswith("http:// is not fetched")
    assert "cannot be read" in reasons[6] and reasons[7] == "the row names no picture"
    assert len({row["id"] for row in rows}) == len(rows)


@pytest.mark.parametrize("suffix", kinds.TABLES)
def test_a_caption_without_end_is_a_reason(suffix, tmp_path):
    (tmp_path / "1.png").write_bytes(picture(1))
    rows = rows_of_table(listed(tmp_path, suffix, [{"uri": "1.png", "caption": "a" * 10**6}, {"uri": "1.png"}]))
    assert [row["reason"] for row in rows] == [
        f"the row people{suffix}#1 says caption in 1000000 characters: more than 65536",
        None,
    ]


def test_hugging_face_parquet_holds_its_pictures_and_names_its_labels(tmp_path):
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = {"image": {"_type": "Image"}, "label": {"names": ["ada", "bob"], "_type": "ClassLabel"}}
    schema = pa.schema(
        [("image", image), ("label", pa.int64()), ("text", pa.string()), ("width", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    rows = [
        {"image": {"bytes": picture(1), "path": "1.png"}, "label": 1, "text": "a face", "width": 20},
        {"image": {"bytes": None, "path": None}, "label": 0, "text": None, "width": 20},
    ]
    (tmp_path / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "data/train-00000-of-00001.parquet")
    one, two = rows_of_table(tmp_path)
    assert (one["label"], one["caption"], one["id"], one["verdict"]) == ("bob", "a face", sha256(picture(1)), None)
    assert two["reason"] == "the row names no picture" and two["uri"] == "data/train-00000-of-00001.parquet#2"


def test_an_imagefolder_is_read_by_its_metadata(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/1.png").write_bytes(picture(1))
    (tmp_path / "train/metadata.csv").write_text("file_name,text\n1.png,a face\n")
    (row,) = rows_of_table(tmp_path)
    assert (row["uri"], row["caption"], row["verdict"]) == ("train/1.png", "a face", None)


def test_a_broken_table_gives_what_it_holds(tmp_path):
    (tmp_path / "1.png").write_bytes(picture(1))
    (tmp_path / "a.jsonl").write_text('{"uri": "1.png"}\n[1]\n{"uri": \n\n{"uri": 7}\n')
    assert [row["reason"] for row in rows_of_table(tmp_path / "a.jsonl")] == [
        None,
        "the line is no JSON object",
        "the line is not valid JSON",
        "the row names no picture",
    ]
    (tmp_path / "b.csv").write_bytes(b"uri\n1.png\n\xff\xfe\n")
    rows = rows_of_table(tmp_path / "b.csv")
    assert "cannot be read after" in rows[-1]["reason"] and rows[-1]["uri"] == "b.csv"
    (tmp_path / "c.parquet").write_bytes(b"PAR1 and no more")
    assert "after 0 rows" in rows_of_table(tmp_path / "c.parquet")[0]["reason"]
    (tmp_path / "d.csv").write_text("name,age\nada,7\n")
    with pytest.raises(UserError, match="neither a column image nor one of uri, file_name, path: it has name, age"):
        rows_of_table(tmp_path / "d.csv")


def test_half_a_character_in_a_tables_name_is_written_out(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"uri": "\ud800.png"}))
    [row] = rows_of_table(tmp_path / "a.jsonl")
    assert row["uri"] == "\\ud800.png" and row["verdict"] == "rejected"


@given(st.sampled_from(kinds.TABLES), st.binary(max_size=600))
@example(suffix=".csv", data=b"\0")
def test_any_bytes_as_a_table_end_in_rows_or_one_line(tmp_path_factory, suffix, data):
    path = tmp_path_factory.mktemp("any") / f"a{suffix}"
    path.write_bytes((b"uri\n" if suffix == ".csv" else b"") + data)
    assert all(row["id"] and row["verdict"] == "rejected" for row in rows_of_table(path))


def test_photos_are_told_by_what_lies_there(tmp_path):
    def source(*names: str) -> str:
        root = tmp_path / sha256(str(names).encode())[:8]
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(b"x")
        return own_photos(str(root))["photos.source"]

    assert source("ada/1.jpg", "ada/1.json", "notes.csv") == "folder"
    assert source("00000.tar", "00000.parquet", "00000_stats.json") == "webdataset"
    assert source("train/1.jpg", "train/metadata.jsonl") == "table"
    assert source("README.md", "data/train-0.parquet") == "table"
    (tmp_path / "people.csv").write_text("uri\n")
    found = own_photos(str(tmp_path / "people.csv"))
    assert (found["photos.source"], found["photos.path"]) == ("table", f"{tmp_path}/people.csv")
