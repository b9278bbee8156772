"""Nothing that people say of a photo's licence, consent and person is lost, however and wherever they say it."""

import json
import logging
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iy import params, rights
from iy.curate import filters
from iy.photos import persons, said
from iy.photos.own import own_photos
from iy.select import decisions
from tests.photographs import laid, of_folder, of_table, of_tars, picture, say, tar_of

JOSE = unicodedata.normalize("NFC", "José")


@pytest.fixture
def heard(caplog):
    """What is logged, each time: messages that are said once are said again."""
    said.warn_once.cache_clear()
    persons.say.cache_clear()
    caplog.set_level(logging.INFO)
    return caplog


SPELT = ["licence", "license", "License", " LICENCE ", "\ufeffLicense", "license_name", "licenses", "ｌｉｃｅｎｓｅ"]


@pytest.mark.parametrize("key", SPELT)
def test_a_licence_is_known_however_its_name_is_spelt(key, tmp_path):
    laid(tmp_path, "a.png")
    say(tmp_path, "a.json", {key: "CC-BY-NC-4.0"})
    row = of_folder(tmp_path)["a.png"]
    assert row["licence"] == "CC-BY-NC-4.0" and row["verdict"] is None
    curate = params.load("smoke").curate
    seen = {"faces": 1, "face_size": 500, "width": 900, "height": 900, "box": [0, 0, 900, 900], "clipped": 0}
    good = row | seen | {"sharpness": 9e9, "yaw": 0, "pitch": 0}
    assert "does not allow usage: commercial" in (filters.flaw(good, curate, "commercial") or "")
    assert filters.flaw(good, curate, "research") is None
    assert filters.flaw(good | {"licence": "CC-BY-4.0"}, curate, "commercial") is None


NOT_FOR_BUSINESS = ["CC-BY-NC-4.0", "cc by nc", "cc_by_nc_sa", "CC BY\u2011NC", "Attribution-NonCommercial License"]
NOT_FOR_BUSINESS += [
    "https://creativecommons.org/licenses/by-nc/4.0/",
    "ccbync4.0",
    "no commercial use",
    "ＣＣ－ＢＹ－ＮＣ",
]
NOT_FOR_BUSINESS += ["not for commercial use", "non commercial", "", "  ", "n/a", "research only", "CC BY 4.0; BY-NC"]


def test_words_of_licences():
    for words in NOT_FOR_BUSINESS:
        assert not rights.commercial(words), words
    for words in ("CC-BY-4.0", "CC0-1.0", "MIT", "commercial licence no 7", "Nanca agency"):
        assert rights.commercial(words), words


def test_words_of_consent():
    for words in ("withdrawn", "Withdrawn 2024-03-01", "REVOKED", "opt-out", "opted_out", "no", "No.", "signed; none"):
        assert rights.withdrawn(words), words
    for words in ("not yet given", "consent withdrawn", "no consent", "refused", "false", "expired 2023", "pending"):
        assert rights.withdrawn(words), words
    for words in ("synthetic", "unknown", "not stated", "signed", "not withdrawn", "signed release no. 4"):
        assert not rights.withdrawn(words), words


@pytest.mark.parametrize("words", ["withdrawn", "Revoked", "no", "opted out"])
def test_a_consent_that_was_taken_back_refuses_the_photo(words, tmp_path):
    laid(tmp_path, "a.png")
    say(tmp_path, "a.json", {"Consent": words})
    row = of_folder(tmp_path)["a.png"]
    assert row["reason"] == f"its sidecar a.json says consent = {words!r}: the photo is not used"


@pytest.mark.parametrize("key", ["licnse", "liscense", "consnet", "consent_withdrawn", "my licence", "concent"])
def test_a_name_that_is_nearly_licence_or_consent_refuses_and_is_told(key, tmp_path):
    laid(tmp_path, "a.png")
    say(tmp_path, "a.json", {key: "something"})
    reason = of_folder(tmp_path)["a.png"]["reason"]
    assert reason and key in reason and "a.json" in reason and "which is nearly" in reason


def test_a_name_that_is_nearly_another_is_told_with_its_file(tmp_path, heard):
    laid(tmp_path, "a.png")
    say(tmp_path, "a.json", {"persn": "Ada", "content": "x", "status": "success", "exif": "{}", "width": 3})
    assert of_folder(tmp_path)["a.png"]["verdict"] is None
    (line,) = [line for line in heard.messages if "is not read" in line]
    assert "'persn'" in line and "a.json" in line and "call it person" in line


def test_two_that_say_different_things_are_both_heard(tmp_path):
    laid(tmp_path, "a.png", "b.png", "c.png", "d.png")
    say(tmp_path, "a.json", b'{"consent": "withdrawn", "consent": "signed"}')
    say(tmp_path, "b.json", {"license": "CC-BY-4.0", "Licence": "CC-BY-NC-4.0", "caption": " ", "person": ""})
    say(tmp_path, "c.json", {"consent": "withdrawn"})
    say(tmp_path, "c.png.json", {"consent": "signed"})
    say(tmp_path, "d.json", {"meta": {"License": "CC-BY-NC-4.0"}})
    rows = of_folder(tmp_path)
    assert "withdrawn" in rows["a.png"]["reason"] and "withdrawn" in rows["c.png"]["reason"]
    assert rows["b.png"]["licence"] == "CC-BY-NC-4.0; CC-BY-4.0" or not rights.commercial(rows["b.png"]["licence"])
    assert rows["b.png"]["verdict"] is None and rows["b.png"]["label"] is None
    assert "inside 'meta'" in rows["d.png"]["reason"]


WITHDRAWN = {"consent": "withdrawn"}
JOINED = [("a.JPG", "a.JSON"), ("a.jpg", "A.json"), ("a.jpg", "a.jpg.json"), ("a.JPG", "a.jpg.Json")]
JOINED += [("a.jpg", "a.jpg.supplemental-metadata.json"), ("a.b.jpg", "a.b.json"), (JOSE + ".jpg", "Jose\u0301.json")]


@pytest.mark.parametrize(("photo", "file"), JOINED)
def test_sidecars_are_joined_whatever_their_case_and_suffix(photo, file, tmp_path):
    laid(tmp_path, photo)
    say(tmp_path, file, WITHDRAWN)
    (row,) = of_folder(tmp_path).values()
    assert "the photo is not used" in row["reason"]


@pytest.mark.parametrize("file", ["a (1).json", "a_info.json", "a .json", "json/a.json", "a-meta.JSON"])
def test_a_sidecar_that_may_be_but_is_not_known_to_be_the_photos_refuses_it(file, tmp_path):
    laid(tmp_path, "in/a.jpg", "in/b.jpg")
    say(tmp_path, file if "/" in file else f"in/{file}", WITHDRAWN)
    rows = of_folder(tmp_path)
    assert "may speak of it" in rows["in/a.jpg"]["reason"] and rows["in/b.jpg"]["verdict"] is None


def test_one_sidecar_of_two_pictures_speaks_of_both(tmp_path):
    laid(tmp_path, "a.jpg", "a.png", "__MACOSX/a.jpg")
    say(tmp_path, "a.json", WITHDRAWN)
    rows = of_folder(tmp_path)
    assert len(rows) == 2 and all("not used" in row["reason"] for row in rows.values())


ENCODED = [("utf-8-sig", True), ("utf-16", True), ("utf-16-le", False), ("latin-1", False)]


@pytest.mark.parametrize(("encoding", "read"), ENCODED)
def test_a_sidecar_of_another_encoding_is_read_or_refused(encoding, read, tmp_path):
    laid(tmp_path, "a.jpg")
    say(tmp_path, "a.json", f'{{"person": "{JOSE}", "licence": "CC-BY-NC-4.0"}}'.encode(encoding))
    row = of_folder(tmp_path)["a.jpg"]
    assert (row["label"] == JOSE and row["licence"] == "CC-BY-NC-4.0") if read else row["reason"]


def test_a_list_is_no_sidecar(tmp_path):
    laid(tmp_path, "a.jpg")
    say(tmp_path, "a.json", [WITHDRAWN])
    assert "must hold a JSON object" in of_folder(tmp_path)["a.jpg"]["reason"]


def test_members_of_a_tar_need_not_be_side_by_side(tmp_path):
    one, two = json.dumps(WITHDRAWN).encode(), json.dumps({"License": "CC-BY-NC-4.0"}).encode()
    parts = [("1.png", picture(1)), ("2.png", picture(2)), ("1.json", one), ("2.json", two)]
    tar_of(tmp_path / "apart.tar", *parts)
    mac = [("3.png", picture(3)), ("._3.json", b"\0\5\x16\7"), ("__MACOSX/._3.png", b"\0\5\x16\7"), ("3.JSON", one)]
    tar_of(tmp_path / "mac.tar", *mac)
    rows = of_tars(tmp_path)
    assert list(rows) == ["apart.tar/1", "apart.tar/2", "mac.tar/3"]
    assert "not used" in rows["apart.tar/1"]["reason"] and "not used" in rows["mac.tar/3"]["reason"]
    assert rows["apart.tar/2"]["licence"] == "CC-BY-NC-4.0"


def test_what_may_speak_of_a_tars_picture_is_joined_or_refuses_it(tmp_path):
    no = json.dumps(WITHDRAWN).encode()
    parts = [("1.jpg", picture(1)), ("1.jpg.json", no), ("2.jpg", picture(2)), ("2_info.json", no)]
    parts += [("3.jpg", picture(3)), ("3.rights.json", no), ("4.jpg", picture(4)), ("4.boxes.json", b"[1, 2]")]
    parts += [
        ("5.jpg", picture(5)),
        ("5.png", picture(6)),
        ("5.json", no),
        ("6.jpg", picture(7)),
        ("6.png", picture(8)),
    ]
    tar_of(tmp_path / "a.tar", *parts)
    rows = of_tars(tmp_path)
    good = {uri for uri, row in rows.items() if row["verdict"] is None}
    assert good == {"a.tar/4", "a.tar/6", "a.tar/6.png"}
    assert "may speak of it" in rows["a.tar/2"]["reason"] and "not used" in rows["a.tar/5.png"]["reason"]


def test_a_tar_that_was_cut_before_a_sidecar_gives_no_picture_that_it_may_have_had(tmp_path):
    no = json.dumps(WITHDRAWN).encode()
    data = tar_of(tmp_path / "a.tar", ("1.png", picture(1)), ("1.json", no), ("2.png", picture(2)), ("2.json", no))
    (tmp_path / "a.tar").write_bytes(data[: 6 * 512])  # between two members
    rows = of_tars(tmp_path)
    assert "a.tar/2" not in rows and "cannot be read after 1 samples" in rows["a.tar"]["reason"]
    data = tar_of(tmp_path / "a.tar", ("1.png", picture(1)), ("2.png", picture(2)), ("2.json", no), ("1.json", no))
    (tmp_path / "a.tar").write_bytes(data[: 6 * 512])
    assert "in the part of the tar that is missing" in of_tars(tmp_path)["a.tar/1"]["reason"]


def test_a_header_with_spaces_and_other_spellings_says_the_same(tmp_path):
    laid(tmp_path, "1.png", "2.png")
    text = '\ufeffFile Name, Person ,"License",CONSENT \n1.png, Ada, CC-BY-NC-4.0, signed\n2.png,Ada,CC0,withdrawn\n'
    for encoding, between in (("utf-8", ","), ("utf-8", ";"), ("utf-16", "\t")):
        (tmp_path / "people.csv").write_bytes(text.replace(",", between).encode(encoding))
        one, two = of_table(tmp_path / "people.csv")
        assert [one[key] for key in ("label", "licence", "consent")] == ["Ada", "CC-BY-NC-4.0", "signed"]
        assert "the row people.csv#2 says consent = 'withdrawn'" in two["reason"]


@pytest.mark.parametrize("key", ["consnet", "consent_withdrawn", "Licnse"])
def test_a_column_that_is_nearly_known_refuses_the_rows_that_fill_it(key, tmp_path):
    laid(tmp_path, "1.png", "2.png")
    (tmp_path / "people.csv").write_text(f"uri,{key}\n1.png,x\n2.png, \n")
    pq.write_table(pa.table({"uri": ["1.png", "2.png"], key: ["x", None]}), tmp_path / "people.parquet")
    nested = pa.table({"uri": ["1.png", "2.png"], "meta": [{key: "x"}, None]})
    pq.write_table(nested, tmp_path / "nested.parquet")
    (tmp_path / "people.jsonl").write_text(json.dumps({"uri": "1.png", key: "x"}) + '\n{"uri": "2.png"}\n')
    for name in ("people.csv", "people.parquet", "people.jsonl", "nested.parquet"):
        one, two = of_table(tmp_path / name)
        assert key in one["reason"] and name in one["reason"] and two["verdict"] is None


def test_a_row_that_is_shifted_is_refused_and_empty_cells_say_nothing(tmp_path):
    laid(tmp_path, "1.png", "2.png", "3.png")
    (tmp_path / "people.csv").write_text("uri,caption,consent\n1.png,hello, world,withdrawn\n2.png,,\n3.png,cut off\n")
    one, two, three = of_table(tmp_path / "people.csv")
    assert "the row has 4 values, the header 3" in one["reason"] and "has 2 values" in three["reason"]
    assert two["verdict"] is None and two["consent"] == "test"


def test_latin_1_is_refused_with_the_remedy(tmp_path):
    laid(tmp_path, "1.png")
    (tmp_path / "people.csv").write_bytes(f"uri,person\n1.png,{JOSE}\n".encode("latin-1"))
    assert "save it as UTF-8" in of_table(tmp_path / "people.csv")[-1]["reason"]


def test_a_table_says_no_more_than_the_sidecars_of_its_files_allow(tmp_path):
    laid(tmp_path, "in/1.png", "in/2.png", "in/3.png")
    say(tmp_path, "in/1.json", WITHDRAWN)
    say(tmp_path, "in/2.json", {"licence": "CC-BY-NC-4.0", "person": "a"})
    (tmp_path / "people.csv").write_text(
        "uri,licence,consent,person\nin/1.png,CC0,signed,Ada\nin/2.png,CC0,signed,Ada\n"
    )
    one, two = of_table(tmp_path / "people.csv")
    assert "not used" in one["reason"] and two["label"] == "Ada" and not rights.commercial(two["licence"])


def test_pictures_that_no_row_names_are_told(tmp_path, heard):
    laid(tmp_path, "1.png", "2.png", "deep/3.png")
    (tmp_path / "metadata.csv").write_text("file_name\n1.png\n")
    assert len(of_table(tmp_path)) == 1
    assert "2 pictures are named by no row, and left out: 2.png, deep/3.png" in heard.text


def test_a_folder_whose_photos_a_table_may_speak_of_is_not_read_without_it(tmp_path):
    laid(tmp_path, "old/1.png", "2.png")
    (tmp_path / "old/metadata.csv").write_text("file_name,consent\n1.png,withdrawn\n")
    rows = of_folder(tmp_path)
    assert "old/metadata.csv may speak of it" in rows["old/1.png"]["reason"] and rows["2.png"]["verdict"] is None


def test_a_person_has_one_spelling_in_every_source(tmp_path):
    other = "Jose\u0301"
    laid(tmp_path / "in", f"{JOSE}/1.png", f"{other}/2.png", f" {JOSE}/3.png", "x/4.png")
    say(tmp_path / "in", "x/4.json", {"person": f" {other} "})
    assert {row["label"] for row in of_folder(tmp_path / "in").values()} == {JOSE}
    tar_of(tmp_path / "a.tar", (f"{JOSE}/1.png", picture(1)), (f"{other}/2.png", picture(2)))
    assert {row["label"] for row in of_tars(tmp_path / "a.tar").values()} == {JOSE}
    (tmp_path / "a.csv").write_text(f"uri,person\nin/{JOSE}/1.png,{JOSE}\nin/{other}/2.png,{other}\n")
    assert [(row["label"], row["verdict"]) for row in of_table(tmp_path / "a.csv")] == [(JOSE, None)] * 2


def test_decisions_name_columns_and_reviewers_in_any_spelling(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"\ufeffID, Verdict ,reviewer,Reason\nab,rejected,Jose\u0301,\n ab ,rejected,{JOSE}  P.,blurred\n")
    assert decisions.read(path)["ab"].reviewer == f"{JOSE}, {JOSE} P."


TEN = tuple(f"ada/{i}.jpg" for i in range(10))
COLLECTIONS = [
    ((*TEN, "backup.tar"), "folder", "1 tars are left out: backup.tar"),
    ((*TEN, "old/metadata.csv"), "folder", "1 tables are left out: old/metadata.csv"),
    ((*TEN, "old/metadata.csv", "old/1.jpg"), "folder", "1 tables are left out"),
    ((*TEN, "__MACOSX/x.tar", ".trash/metadata.csv"), "folder", ""),
    (("00000.tar", "00000.parquet", "preview.jpg", "second.jpg"), "webdataset", "2 pictures are left out"),
    (("backup.TAR",), "webdataset", ""),
    (("train/1.jpg", "train/metadata.jsonl", "test/2.jpg", "test/Metadata.csv"), "table", ""),
    (("metadata.csv", "a/1.jpg", "b/2.jpg"), "table", ""),
]


@pytest.mark.parametrize(("files", "source", "left"), COLLECTIONS)
def test_a_stray_tar_or_table_does_not_turn_a_folder_of_photos_into_one(files, source, left, tmp_path, heard):
    for name in files:
        say(tmp_path, name, b"x")
    assert own_photos(str(tmp_path))["photos.source"] == source
    assert left in heard.text and bool(left) == ("left out" in heard.text)


LEVELS = [
    (("train/ada/1.png", "test/bob/1.png", "train/2.png"), ["ada", "bob", None], "level 2, below test, train"),
    (("2019/ada/1.png", "2020/bob/1.png", "2020/bob/05/2.png"), ["ada", "bob", "bob"], "level 2, below 2019, 2020"),
    (("2019/05/1.png", "2020-01-02/2.png", "2019/ada/3.png"), [None, None, "ada"], "level 2, below 2019"),
    (("images/train/ada/1.png", "images/val/bob/1.png"), ["ada", "bob"], "level 3, below images, train, val"),
    (("2001/1.png", "n7/2.png"), ["2001", "n7"], "2 persons are called by the folders of level 1 in"),
    (("train/1.png", "test/2.png"), [None, None], "2 photos lie in folders that are not"),
    (("Jose\u0301/1.png", "jose/2.png"), [JOSE, "jose"], f"{JOSE}, jose are different persons here"),
]


@pytest.mark.parametrize(("files", "people", "told"), LEVELS)
def test_folders_above_the_persons_are_no_persons_and_the_level_is_told(files, people, told, tmp_path, heard):
    laid(tmp_path / "in", *files)
    rows = of_folder(tmp_path / "in")
    assert [rows[name]["label"] for name in files] == people and told in heard.text
    heard.clear()
    persons.say.cache_clear()
    tar_of(tmp_path / "a.tar", *((name, picture(i)) for i, name in enumerate(files)))
    rows = of_tars(tmp_path / "a.tar")
    assert [rows[f"a.tar/{name[:-4]}"]["label"] for name in files] == people and told in heard.text
