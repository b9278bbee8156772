"""What may speak of a photo and is not surely read refuses it; what is left out is told."""

import json
import logging

import pytest

from iy import records, rights
from iy.photos import persons
from iy.photos.run import run
from tests.photographs import laid, of_folder, of_table, of_tars, picture, say, settings, tar_of

WITHDRAWN = {"consent": "withdrawn"}
NO = json.dumps(WITHDRAWN).encode()


@pytest.fixture
def heard(caplog):
    persons.say.cache_clear()
    caplog.set_level(logging.INFO)
    return caplog


@pytest.mark.parametrize(("kept", "left"), [(4, "1"), (6, "2")])  # of the last sample nothing is
def test_a_tar_that_was_cut_before_all_sidecars_gives_no_picture_without_its_own(kept, left, tmp_path):
    data = tar_of(tmp_path / "a.tar", ("1.png", picture(1)), ("2.png", picture(2)), ("1.json", NO), ("2.json", NO))
    (tmp_path / "a.tar").write_bytes(data[: kept * 512])
    rows = of_tars(tmp_path)
    assert list(rows) == [f"a.tar/{left}", "a.tar"]
    assert "in the part of the tar that is missing" in rows[f"a.tar/{left}"]["reason"]


def test_tars_that_were_joined_by_cat_are_told_and_their_pictures_not_used_unsaid(tmp_path):
    first = tar_of(tmp_path / "parts/a.tar", ("1.png", picture(1)), ("2.png", picture(2)), ("2.json", b"{}"))
    second = tar_of(tmp_path / "parts/b.tar", ("1.json", NO), ("3.png", picture(3)))
    say(tmp_path, "joined/c.tar", first + second)
    rows = of_tars(tmp_path / "joined")
    assert "more follows its end" in rows["c.tar"]["reason"]
    assert "in the part of the tar that is missing" in rows["c.tar/1"]["reason"]


def test_members_with_and_without_a_leading_dot_are_of_one_folder(tmp_path):
    tar_of(tmp_path / "a.tar", ("./ada/1.png", picture(1)), ("ada/1.json", NO))
    (row,) = of_tars(tmp_path).values()
    assert row["uri"] == "a.tar/ada/1" and row["label"] == "ada" and "not used" in row["reason"]


def test_tars_are_known_in_any_case_and_what_lies_beside_them_is_told(tmp_path, heard):
    for name in ("a.TAR", "__MACOSX/a.tar", ".trash/b.tar"):
        tar_of(tmp_path / name, ("1.png", picture(1)))
    laid(tmp_path, "preview.jpg")
    assert list(of_tars(tmp_path)) == ["a.TAR/1"]
    assert "1 pictures lie beside the tars, and are left out: preview.jpg" in heard.text


@pytest.mark.parametrize("suffix", ["yaml", "yml", "toml", "xmp", "xml", "YAML", "jpg.xmp"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_sidecar_of_a_kind_that_is_not_read_refuses_the_photo_if_it_speaks_of_rights(suffix, encoding, tmp_path):
    laid(tmp_path / "in", "a.jpg", "b.jpg")
    says = ("Licence: CC-BY-NC".encode(encoding), "width: 3".encode(encoding))
    for name, data in zip("ab", says, strict=True):
        say(tmp_path / "in", f"{name}.{suffix}", data)
    rows = of_folder(tmp_path / "in")
    assert "speaks of its licence or consent" in rows["a.jpg"]["reason"] and rows["b.jpg"]["verdict"] is None
    parts = [("a.jpg", picture(1)), (f"a.{suffix}", says[0]), ("b.jpg", picture(2)), (f"b.{suffix}", says[1])]
    tar_of(tmp_path / "a.tar", *parts)
    rows = of_tars(tmp_path / "a.tar")
    assert "speaks of its licence or consent" in rows["a.tar/a"]["reason"] and rows["a.tar/b"]["verdict"] is None


@pytest.mark.parametrize("file", ["IMG.jpg(1).json", "IMG.jpg.supplemental-metadata(1).json", "img(1).json"])
def test_a_numbered_sidecar_is_of_the_numbered_photo(file, tmp_path):
    laid(tmp_path, "IMG.jpg", "IMG(1).jpg")
    say(tmp_path, file, WITHDRAWN)
    rows = of_folder(tmp_path)
    assert "not used" in rows["IMG(1).jpg"]["reason"] and rows["IMG.jpg"]["verdict"] is None


@pytest.mark.parametrize("photo", ["1_crop.jpg", "1 (2).jpg", "1.face.png"])
def test_a_sidecar_without_a_photo_refuses_those_whose_names_go_on_from_its(photo, tmp_path):
    laid(tmp_path, photo, "2.jpg")
    say(tmp_path, "1.json", WITHDRAWN)
    rows = of_folder(tmp_path)
    assert "1.json may speak of it" in rows[photo]["reason"] and rows["2.jpg"]["verdict"] is None


@pytest.mark.parametrize("text", ["sep=;\nuri;consent\na.jpg;withdrawn\n", "uri|consent\na.jpg|withdrawn\n"])
def test_a_table_may_say_what_stands_between_its_cells(text, tmp_path):
    laid(tmp_path, "a.jpg")
    (tmp_path / "a.csv").write_text(f"\ufeff{text}")
    (row,) = of_table(tmp_path / "a.csv")
    assert "consent = 'withdrawn'" in row["reason"]


def test_photos_in_folders_that_are_called_like_no_person_are_counted(tmp_path, heard):
    laid(tmp_path, "anna/1.jpg", "val/1.jpg", "val/2.jpg", "top.jpg")
    assert {row["label"] for row in of_folder(tmp_path).values()} == {"anna", None}
    assert "2 photos lie in folders that are not called like a person, and have none" in heard.text


REFUSED = "all rights reserved|editorial use only|private|non-profit|noncomm|1|other|see LICENSE|no license|unlicensed|"
REFUSED += "nicht kommerziell|nicht-kommerzielle Nutzung|pas d'utilisation commerciale|uso no comercial|not licensed|"
REFUSED += (
    "internal use|students|restricted|do not use|copyrighted|fair use|custom|cc-by-n.c.|CC BY N C|BYNCSA|not known"
)
FREE = "CC-BY-SA-4.0|Unlicense|Public Domain Mark|US Government Work|Industrial licence 5|CC BY 4.0 International|ncsa|"
FREE += "Incorporated Studios contract|unrestricted|No known copyright restrictions"


def test_licences_that_say_no_or_nothing_are_not_commercial():
    assert not [words for words in REFUSED.split("|") if rights.commercial(words)]
    assert not [words for words in FREE.split("|") if not rights.commercial(words)]


TAKEN_BACK = "withdraws|no longer|deletion requested|taken back|lapsed|void|invalid|objection|unsigned|forbidden|"
TAKEN_BACK += (
    "nonconsensual|delete|removed on request|consent: no|Not consenting|WithdrawnBySubject|declines|not valid|"
)
TAKEN_BACK += "blocked|nope|no permission|cannot be used|must not be used|terminated"
GIVEN = "signed|not withdrawn|has never been revoked|release no. 4|intended for research|extended 2024|informed consent"


def test_consents_that_were_taken_back_in_other_words():
    assert not [words for words in TAKEN_BACK.split("|") if not rights.withdrawn(words)]
    assert not [words for words in GIVEN.split("|") if rights.withdrawn(words)]


WIDE = [
    "metadata.json",
    "consent.json",
    "ada.json",
    "ada/ada.json",
    "people.csv",
    "ada/list.jsonl",
    "Dataset_Infos.JSON",
]


@pytest.mark.parametrize("file", WIDE)
def test_what_speaks_of_several_photos_at_once_refuses_them(file, tmp_path):
    laid(tmp_path / "in", "ada/1.jpg", "bob/1.jpg")
    say(tmp_path / "in", file, [{"file_name": "ada/1.jpg", "Consent": "withdrawn"}])
    rows = of_folder(tmp_path / "in")
    assert f"{file} speaks of licences or consents" in rows["ada/1.jpg"]["reason"]
    ada_alone = file.startswith("ada")
    assert (rows["bob/1.jpg"]["verdict"] is None) == ada_alone
    say(tmp_path / "in", file, [{"file_name": "ada/1.jpg", "caption": "smiling"}])
    assert {row["verdict"] for uri, row in of_folder(tmp_path / "in").items() if uri.endswith("jpg")} == {None}


def test_in_a_tar_too_and_a_sidecar_of_a_photo_that_is_gone_speaks_of_no_other(tmp_path):
    tar_of(tmp_path / "a.tar", ("ada/1.jpg", picture(1)), ("bob/1.jpg", picture(2)), ("ada.json", NO))
    tar_of(tmp_path / "b.tar", ("1.jpg", picture(3)), ("7.json", NO))
    rows = of_tars(tmp_path)
    assert "ada.json speaks of licences or consents" in rows["a.tar/ada/1"]["reason"]
    assert rows["a.tar/bob/1"]["verdict"] is None and rows["b.tar/1"]["verdict"] is None
    laid(tmp_path, "in/1.jpg")
    say(tmp_path, "in/7.json", WITHDRAWN)
    assert of_folder(tmp_path / "in")["1.jpg"]["verdict"] is None


@pytest.mark.parametrize("file", ["a.jpg.license", "a.LICENSE", "a.consent.txt", "a.jpg.licence.txt"])
def test_a_file_that_is_called_licence_or_consent_is_not_passed_over(file, tmp_path):
    laid(tmp_path / "in", "a.jpg", "b.jpg")
    say(tmp_path / "in", file, b"CC-BY-NC-4.0")
    rows = of_folder(tmp_path / "in")
    assert "speaks of its licence or consent" in rows["a.jpg"]["reason"] and rows["b.jpg"]["verdict"] is None
    tar_of(tmp_path / "a.tar", ("a.jpg", picture(1)), (file, b"CC-BY-NC-4.0"))
    assert "speaks of its licence or consent" in of_tars(tmp_path / "a.tar")["a.tar/a"]["reason"]


@pytest.mark.parametrize(
    "key", ["rights", "Usage Rights", "usage_terms", "opt_out", "withdrawn", "doNotUse", "permission"]
)
def test_other_words_for_licence_and_consent_refuse_the_photo_too(key, tmp_path):
    laid(tmp_path, "a.jpg", "b.jpg")
    say(tmp_path, "a.json", {key: "x"})
    say(tmp_path, "b.json", {key: False, "brightness": 3, "copyright": "x", "status": "success", "exif": "{}"})
    rows = of_folder(tmp_path)
    assert "which is nearly" in rows["a.jpg"]["reason"] and rows["b.jpg"]["verdict"] is None


def test_a_table_finds_a_file_whose_name_is_written_otherwise(tmp_path):
    laid(tmp_path, "in/Jos\u00e9.jpg", "in/Zoe\u0308.jpg")
    text = "uri,consent\nin/Jose\u0301.jpg,withdrawn\nin\\Zo\u00eb.jpg,signed\n..\\..\\x.jpg,signed\n"
    (tmp_path / "a.csv").write_text(text)
    one, two, three = of_table(tmp_path / "a.csv")
    assert "not used" in one["reason"] and (two["verdict"], two["consent"]) == (None, "signed")
    assert "outside the table's folder" in three["reason"] or "cannot be read" in three["reason"]


def test_a_consent_that_was_withdrawn_in_one_place_holds_for_the_same_picture_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("ada/1.jpg", "ada/2.jpg", "copies/1.jpg"):
        say(tmp_path / "in", name, picture(2 if "2" in name else 1))
    say(tmp_path / "in", "copies/1.json", WITHDRAWN)
    run(settings(source="folder", path="in"))
    rows = {row["uri"]: row for row in records.read("data/tried/photos/photos.parquet", records.PHOTO)}
    assert rows["copies/1.jpg"]["consent"] == "withdrawn" and rows["ada/2.jpg"]["verdict"] is None
    assert rows["ada/1.jpg"]["verdict"] == records.REJECTED and rows["ada/1.jpg"]["consent"] == "withdrawn"
    assert rows["ada/1.jpg"]["shard"] is None, "no later stage looks at it"
    assert "the same picture" in rows["ada/1.jpg"]["reason"] and "copies/1.jpg" in rows["ada/1.jpg"]["reason"]


PLACES = [
    (("train_set/ada/1.jpg", "train2017/bob/1.jpg", "Test Images/cem/1.jpg", "fold-2/dan/1.jpg"), "ada bob cem dan"),
    (("person_1/1.jpg", "face2/1.jpg", "image3/1.jpg", "set4/1.jpg"), "person_1 face2 image3 set4"),
    ((" 2019 /ada/1.jpg", "2020/bob/1.jpg"), "ada bob"),
]


@pytest.mark.parametrize(("files", "people"), PLACES)
def test_names_of_parts_may_be_made_of_several_words_and_numbers(files, people, tmp_path):
    laid(tmp_path, *files)
    rows = of_folder(tmp_path)
    assert [rows[name]["label"] for name in files] == people.split()


def test_a_folder_around_all_persons_is_told(tmp_path, heard):
    laid(tmp_path, "lfw/ada/1.jpg", "lfw/bob/1.jpg")
    of_folder(tmp_path)
    assert "all are of one person: if ada, bob are persons, name the folder that they lie in" in heard.text


LONG = "ThisIsAPhotoWithAVeryLongNameThatGoesOnAndOnForEver"


@pytest.mark.parametrize("photo", [LONG, "This is a photo with a very long name that goes"])
def test_a_sidecar_whose_long_name_was_cut_off_is_of_the_photo_that_it_begins(photo, tmp_path):
    """Google Takeout writes 46 letters, wherever that is."""
    laid(tmp_path, f"{photo}.jpg", "other.jpg")
    say(tmp_path, f"{photo[:46]}.json", WITHDRAWN)
    rows = of_folder(tmp_path)
    assert "not used" in rows[f"{photo}.jpg"]["reason"] and rows["other.jpg"]["verdict"] is None
    tar_of(tmp_path / "tars/a.tar", (f"{photo[:46]}.json", NO), (f"{photo}.jpg", picture(1)), ("other.jpg", picture(2)))
    rows = of_tars(tmp_path / "tars")
    assert rows[f"a.tar/{photo}"]["verdict"] == records.REJECTED and rows["a.tar/other"]["verdict"] is None


def test_a_name_that_was_cut_off_and_begins_several_refuses_them(tmp_path):
    laid(tmp_path, f"{LONG}1.jpg", f"{LONG}2.jpg", "other.jpg")
    say(tmp_path, f"{LONG[:46]}.json", WITHDRAWN)
    rows = of_folder(tmp_path)
    assert rows.pop("other.jpg")["verdict"] is None
    assert all(f"{LONG[:46]}.json may speak of it" in row["reason"] for row in rows.values())


@pytest.mark.parametrize("file", ["IMG.jpg(1).json", "IMG.jpg.supplemental-metadata(1).json", "IMG.suppl(1).json"])
def test_a_numbered_sidecar_is_of_the_numbered_photo_where_there_is_no_other(file, tmp_path):
    laid(tmp_path, "IMG(1).jpg", "IMG(2).jpg")
    say(tmp_path, file, WITHDRAWN)
    rows = of_folder(tmp_path)
    assert "not used" in rows["IMG(1).jpg"]["reason"] and rows["IMG(2).jpg"]["verdict"] is None


@pytest.mark.parametrize("copy", ["IMG-edited.jpg", "IMG-BEARBEITET.jpg", "IMG-modifié.png", "IMG-編集済み.jpg"])
def test_an_edited_copy_is_known_by_what_is_said_of_the_original(copy, tmp_path):
    laid(tmp_path, "IMG.jpg", copy, "IMG-2.jpg")
    say(tmp_path, "IMG.jpg.json", WITHDRAWN)
    rows = of_folder(tmp_path)
    assert "not used" in rows[copy]["reason"] and rows["IMG-2.jpg"]["verdict"] is None
    say(tmp_path, "IMG.jpg.json", {"person": "Anna"})
    say(tmp_path, f"{copy}.json", {"consent": "revoked"})
    rows = of_folder(tmp_path)
    assert "revoked" in rows[copy]["reason"] and rows["IMG.jpg"]["label"] == "Anna"
    tar_of(tmp_path / "tars/a.tar", (copy, picture(1)), ("IMG.jpg", picture(2)), ("IMG.json", NO))
    assert {row["verdict"] for row in of_tars(tmp_path / "tars").values()} == {records.REJECTED}
