"""Classifiers in curate: real transformers models of tiny sizes, one of them with an answer that follows brightness."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    ConvNextImageProcessor,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTModel,
)

from iy import params, resume
from iy.curate import classify, measure
from iy.curate.classifier import Classifier
from iy.curate.networks import Batches
from iy.curate.run import run
from iy.errors import UserError
from iy.params import Params
from iy.photos.run import run as take_photos
from iy.records import ACCEPTED, REJECTED
from iy.storage import read_image
from tests.att_faces import copy_folders
from tests.curating import PROCESSES, settings, table

LABELS = ["dark", "bright", "glaring"]
STEEP = 20.0


def vit(folder: Path, kind: type = ViTForImageClassification) -> str:
    """Two layers of width 32, random weights."""
    torch.manual_seed(0)
    kind(
        ViTConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=32,
            patch_size=16,
            id2label=dict(enumerate(LABELS)),
        )
    ).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return str(folder)


def bright(folder: Path) -> str:
    """A ResNet that hands through how bright a picture is, 0..1, to logits that `expected` knows."""
    model = ResNetForImageClassification(
        ResNetConfig(
            embedding_size=4, hidden_sizes=[4], depths=[1], layer_type="basic", id2label=dict(enumerate(LABELS))
        )
    ).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "normalization" not in name:
                parameter.zero_()
        model.resnet.embedder.embedder.convolution.weight[0, :, 3, 3] = 1 / 3
        model.classifier[1].weight[1:, 0] = STEEP
        model.classifier[1].bias.copy_(torch.tensor([0.0, -STEEP / 2, -STEEP / 2 - 2]))
    model.save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=1.0, do_normalize=False).save_pretrained(folder)
    return str(folder)


def expected(level: float) -> np.ndarray:
    """Probabilities of the labels for an evenly grey picture."""
    odds = np.exp([0.0, STEEP * (level - 0.5), STEEP * (level - 0.5) - 2])
    return odds / odds.sum()


def grey(level: float, height: int = 40, width: int = 50) -> np.ndarray:
    return np.full((height, width, 3), round(255 * level), np.uint8)


def one(model: str, label: str | list[str] = "bright", maximum: float = 0.5, seen: str = "photo") -> params.Classifier:
    return params.Classifier.model_validate({"model": model, "label": label, "maximum": maximum, "input": seen})


def opened(*args, **options) -> Classifier:
    return Classifier("glare", one(*args, **options), batch=3, device="cpu")


@pytest.mark.parametrize("label", ["bright", ["bright", "glaring"], ["dark", "bright", "glaring"]])
def test_the_probabilities_of_several_labels_are_summed(tmp_path, label):
    levels = [0.2, 0.45, 0.5, 0.55, 0.9]
    found = opened(bright(tmp_path), label)([grey(level, 30 + i, 60 - i) for i, level in enumerate(levels)])
    columns = [LABELS.index(name) for name in ([label] if isinstance(label, str) else label)]
    assert found == pytest.approx([expected(round(255 * level) / 255)[columns].sum() for level in levels], abs=1e-3)


@pytest.mark.parametrize("kind", ["absent", "empty", "pickle", "damaged", "headless"])
def test_a_model_that_cannot_be_used_is_one_sentence(tmp_path, kind):
    says = "is no trained classifier, its weights lack classifier" if kind == "headless" else "cannot be opened"
    if kind != "absent":
        vit(tmp_path / "model", ViTModel if kind == "headless" else ViTForImageClassification)
    weights = tmp_path / "model/model.safetensors"
    if kind == "empty":
        shutil.rmtree(tmp_path / "model")
        weights.parent.mkdir()
    elif kind == "pickle":
        model = ViTForImageClassification.from_pretrained(weights.parent)
        torch.save(model.state_dict(), weights.with_name("pytorch_model.bin"))
        weights.unlink()
    elif kind == "damaged":
        weights.write_bytes(b"no weights")
    with pytest.raises(UserError, match=f"curate.classifiers.glare.model {tmp_path}/model {says}.*: name a") as caught:
        opened(str(tmp_path / "model"))
    assert "\n" not in str(caught.value)


def test_an_unknown_label_is_told_with_those_that_there_are(tmp_path):
    says = "curate.classifiers.glare.label: .* has no label 'brihgt': choose among 'dark', 'bright', 'glaring'$"
    with pytest.raises(UserError, match=says):
        opened(vit(tmp_path), ["dark", "brihgt"])


def rows_of(levels: list[float], **more) -> list[dict]:
    return [{"level": level, "verdict": ACCEPTED, "reason": None, "scores": None} | more for level in levels]


def test_each_is_asked_about_what_those_before_let_through(tmp_path, monkeypatch):
    monkeypatch.setattr(classify, "BATCH", 2)
    model = bright(tmp_path)
    classifiers = {"glare": opened(model, ["bright", "glaring"]), "night": opened(model, "dark", 0.9)}
    before = rows_of([0.9], verdict=REJECTED, reason="blurred") + rows_of([0.9, 0.1, 0.45])
    rows = classify.judged(before, classifiers, lambda some: [grey(row["level"]) for row in some])
    assert rows[0] == before[0] and before[1]["scores"] is None
    scores = json.loads(rows[1]["scores"])
    assert scores == {"glare": pytest.approx(1 - expected(round(255 * 0.9) / 255)[0], abs=1e-3)}
    said = f"glare: probability {scores['glare']:.4f}, curate.classifiers.glare.maximum is 0.5"
    assert rows[1]["verdict"] == REJECTED and rows[1]["reason"] == said
    assert rows[2]["verdict"] == REJECTED and rows[2]["reason"].startswith("night: probability 0.99")
    assert rows[3]["verdict"] == ACCEPTED and set(json.loads(rows[3]["scores"])) == {"glare", "night"}


def test_a_face_is_shown_by_itself(tmp_path):
    """A bright face in a dark photo, and the same beside the photo's edge."""
    model = bright(tmp_path)
    middle, edge = grey(0.0, 200, 200), grey(0.0, 200, 200)
    middle[60:120, 80:140] = edge[0:60, 140:200] = 255
    points = [0.0] * 10
    rows = [
        row | {"box": box, "landmarks": points}
        for row, box in zip(rows_of([0, 0]), ([90, 70, 130, 110], [150, 10, 190, 50]), strict=True)
    ]
    for seen, right in (("photo", 0.0), ("face", 1.0)):
        shown = [classify.shown_of(image, row, seen) for image, row in zip((middle, edge), rows, strict=True)]
        assert shown[0].shape == ((60, 60, 3) if seen == "face" else (200, 200, 3))
        found = opened(model, ["bright", "glaring"], seen=seen)(shown)
        assert found == pytest.approx([right] * 2, abs=0.01)


def glare(maximum: float, model: str) -> Params:
    classifier = one(model, ["bright", "glaring"], maximum).model_dump()
    return settings(
        photos={"source": "folder", "path": "in"},
        minimum_sharpness=0.0,
        minimum_per_person=1,
        wrong_names="keep",
        classifiers={"glare": classifier},
    )


def test_bright_photographs_are_refused_with_number_and_threshold(empty_project, tmp_path):
    """Among them the lighter copy of one that is kept: it is refused before copies are looked for."""
    model = bright(tmp_path / "model")
    asks = opened(model, ["bright", "glaring"])
    pictures = {file: np.asarray(Image.open(file).convert("RGB")) for file in copy_folders(empty_project / "in", 10, 2)}
    by_score = sorted((asks([picture])[0], file) for file, picture in pictures.items())
    maximum, kept = round((by_score[-4][0] + by_score[-5][0]) / 2, 4), by_score[-5][1]
    lighter = (pictures[kept] * 1.1).clip(0, 255).astype(np.uint8)
    Image.fromarray(lighter).save(empty_project / f"in/{kept.parent.name}/lighter.png")
    Image.new("RGB", (90, 90), "white").save(empty_project / "in/nobody.png")
    wanted = glare(maximum, model)
    take_photos(wanted)
    run(wanted)
    rows = {row["uri"]: row for row in table()}
    assert rows["nobody.png"]["reason"] == "no face found" and rows["nobody.png"]["scores"] is None, (
        "it was not asked about"
    )
    right = {uri: asks([read_image("data/tried/photos", row)])[0] for uri, row in rows.items() if uri != "nobody.png"}
    refused = {uri: row for uri, row in rows.items() if row["verdict"] == REJECTED and uri != "nobody.png"}
    assert len(refused) == 5 and refused.keys() == {uri for uri, score in right.items() if score > maximum}
    assert f"{kept.parent.name}/lighter.png" in refused
    for uri, row in refused.items():
        score = json.loads(row["scores"])["glare"]
        assert score == pytest.approx(right[uri], abs=1e-4) and row["person"] is row["split"] is None
        assert row["reason"] == f"glare: probability {score:.4f}, curate.classifiers.glare.maximum is {maximum}"
    assert '<td>glare</td><td class="number">5</td>' in Path("reports/tried/curate/index.html").read_text()


def outputs() -> dict[str, bytes]:
    found = [path for place in ("data/tried/curate", "reports/tried") for path in Path(place).rglob("*.*")]
    return {str(path): path.read_bytes() for path in found}


def test_two_processes_find_the_very_bytes_of_one(empty_project, tmp_path, monkeypatch):
    copy_folders(empty_project / "in", 10, 4)
    wanted = glare(0.94, bright(tmp_path / "model"))
    take_photos(wanted)
    run(wanted)
    alone = outputs()
    assert 0 < sum((row["reason"] or "").startswith("glare: ") for row in table()) < 20
    monkeypatch.setattr(measure, "ALONE", 0)
    run(wanted.model_copy(update={"workers": PROCESSES}))
    assert outputs() == alone


def test_what_was_classified_is_not_asked_about_again(empty_project, tmp_path, monkeypatch):
    copy_folders(empty_project / "in", 10, 4)
    wanted, asked, several = glare(1.0, bright(tmp_path / "model")), [], Classifier.several
    take_photos(wanted)

    def stops_once(self, images):
        asked.extend(images)
        if 16 < len(asked) <= 32:
            raise KeyboardInterrupt
        return several(self, images)

    monkeypatch.setattr(Classifier, "several", stops_once)
    with pytest.raises(KeyboardInterrupt):
        run(wanted)
    monkeypatch.setattr(measure, "columns", None)  # every photo was measured
    run(wanted)
    assert len(asked) == 40 + 16, "the first part of 16 was kept"
    assert not list(Path(".iy/resume/tried").glob("curate-*"))


def test_other_weights_are_other_answers(tmp_path):
    """The name of the folder stays, what lies in it changes: nothing that the old ones said is taken."""

    def place(maximum: float) -> Path:
        return resume.place(Path("work"), "classified", [str(tmp_path)], maximum)

    vit(tmp_path)
    first = place(0.5)
    assert place(0.5) == first != place(0.6)
    bright(tmp_path)
    assert place(0.5) != first


def test_a_missing_model_is_told_before_the_long_work(empty_project, tmp_path, monkeypatch):
    copy_folders(empty_project / "in", 1, 2)
    wanted = glare(0.5, str(tmp_path / "nowhere"))
    take_photos(wanted)
    monkeypatch.setattr(measure, "columns", None)
    with pytest.raises(UserError, match="curate.classifiers.glare.model .*nowhere cannot be opened"):
        run(wanted)


def test_what_the_memory_does_not_hold_is_halved(caplog):
    caplog.set_level(logging.WARNING)
    sizes: list[int] = []

    def work(some: list[int], most: int = 3) -> list[int]:
        sizes.append(len(some))
        if len(some) > most:
            raise torch.OutOfMemoryError
        return [10 * one for one in some]

    batches = Batches(8, "curate.caption_model")
    assert batches(work, list(range(11))) == [10 * k for k in range(11)] and batches(work, [5]) == [50]
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 1, 1] and len(caplog.records) == 2
    with pytest.raises(
        UserError, match="curate.caption_model: the GPU's memory does not hold the model and one picture"
    ):
        batches(lambda some: work(some, 0), [1])
