"""A face swapper puts the reference's face in place, and leaves the rest of the picture."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from iy import faces, params
from iy.faces import weights
from iy.synpairs.generators import squared
from iy.synpairs.plan import Plan
from iy.synpairs.rewriters import Rewrite
from tests.att_faces import att
from tests.pair_models import PLANS, crops, load, refused, same, settings

EMBEDDING, SIDE = 512, 128  # what inswapper takes: a face as so many numbers, its crop in pixels


def inswapper(path: Path, takes: int = EMBEDDING) -> Path:
    """A network of inswapper's signature: the crop, half tinted in a colour that the face's numbers decide."""
    rng = np.random.default_rng(3)
    constants = {"colours": rng.normal(0, 3, (takes, 3)), "half": np.full(1, 0.5), "emap": np.eye(takes)}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["source", "colours"], ["mixed"]),
            helper.make_node("Sigmoid", ["mixed"], ["colour"]),
            helper.make_node("Unsqueeze", ["colour", "axes"], ["tint"]),
            helper.make_node("Add", ["target", "tint"], ["both"]),
            helper.make_node("Mul", ["both", "half"], ["output"]),
        ],
        "inswapper",
        [
            helper.make_tensor_value_info("target", TensorProto.FLOAT, [1, 3, SIDE, SIDE]),
            helper.make_tensor_value_info("source", TensorProto.FLOAT, [1, takes]),
        ],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [numpy_helper.from_array(np.array([2, 3]), "axes")]
        + [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def pack():
    """The analyser of the pinned pack, whose recogniser gives 512 numbers."""
    if not (weights.present("scrfd") and weights.present("fr_feature")):
        pytest.skip(f"face weights not fetched: {weights.COMMAND}")
    return faces.load_analyser(pack_settings(), "research", "cpu")


def pack_settings() -> params.Faces:
    return params.Faces(
        analyser="insightface", pack=str(weights.folder() / weights.PACK), minimum_score=0.5, embed_size=None
    )


def swapping(path: Path) -> params.Params:
    chosen = settings(Path("x"), "", generator=None, refiner="inswapper", refiner_model=str(path))
    return chosen.model_copy(update={"faces": pack_settings()})


def portrait(person: int, photo: int, margin: int) -> np.ndarray:
    """An AT&T face of 160 pixels in a grey frame."""
    around = [(margin, margin), (margin, margin), (0, 0)]
    return np.pad(squared(att(person, photo), 160), around, constant_values=90)


def embedded(pack, person: int) -> dict:
    image = att(person, 1)
    return {"embedding": pack.embed(image, pack.detect(image)[0]).tolist()}


def test_a_swapper_changes_the_face_by_the_reference_and_nothing_around_it(pack, tmp_path):
    _, refiner = load(swapping(inswapper(tmp_path / "small.onnx")), pack)
    picture = portrait(1, 2, margin=160)
    [face] = pack.detect(picture)
    rewritten = Rewrite("a man", [], None)
    one, other = (Plan(embedded(pack, person), 0, 1, rewritten) for person in (5, 9))
    swapped, again, another = refiner.refine([one, one, other], crops(3), [picture] * 3, 1)
    assert same([swapped], [again]) and not same([swapped], [another])
    x0, y0, x1, y1 = face.box.round().astype(int)
    changed = np.abs(swapped.astype(int) - picture).max(-1)
    assert changed[(y0 + y1) // 2, (x0 + x1) // 2] > 10
    wide, high = (x1 - x0) // 2, (y1 - y0) // 2
    changed[y0 - high : y1 + high, x0 - wide : x1 + wide] = 0
    assert changed.max() == 0 and 16 * high * wide < changed.size, "most of the picture lies around it"
    blank = np.full((256, 256, 3), 90, np.uint8)
    assert same(refiner.refine([one], crops(1), [blank], 1), [blank]), "no face, no change"


def test_colours_keep_their_channels_through_the_swapper(pack, tmp_path):
    """A network that gives back its crop leaves the picture as it was, up to the crop's resolution, to its edges."""
    path = inswapper(tmp_path / "small.onnx")
    model = onnx.load(path)
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("Identity", ["target"], ["output"]))
    onnx.save(model, path)
    _, refiner = load(swapping(path), pack)
    picture = (portrait(1, 2, margin=0) * np.array([1.0, 0.8, 0.6])).astype(np.uint8)
    [kept] = refiner.refine([Plan(embedded(pack, 5), 0, 1, PLANS[0].rewrite)], crops(1), [picture], 1)
    difference = np.abs(kept.astype(int) - picture)
    assert 0 < difference.mean() < 2 and max(difference[0].mean(), difference[-1].mean()) < 2


def test_a_swapper_that_is_not_allowed_or_not_fitting_is_one_sentence(pack, tmp_path):
    chosen = swapping(inswapper(tmp_path / "small.onnx"))
    refused(chosen.model_copy(update={"usage": "commercial"}), "commercial does not allow synpairs.refiner: inswapper")
    opened = chosen.faces.model_copy(update={"analyser": "open"})
    refused(chosen.model_copy(update={"faces": opened}), "inswapper needs.*faces.analyser: insightface")
    refused(swapping(tmp_path / "none.onnx"), "synpairs.refiner_model: .*none.onnx is not a file")
    (tmp_path / "text.onnx").write_text("no network")
    refused(swapping(tmp_path / "text.onnx"), "text.onnx cannot be opened by insightface", pack)
    recogniser = weights.path("fr_feature")
    refused(swapping(recogniser), "fr_feature.onnx is not inswapper's network", pack)
    refused(swapping(inswapper(tmp_path / "other.onnx", takes=128)), "faces as 128 numbers.* 512", pack)
