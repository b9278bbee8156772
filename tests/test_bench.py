"""Benchmarks measure what they say: the same function, done in different ways, in turns."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from iy.bench import attention, generate, gpu, measure, stock, train, unet
from iy.cli import app
from iy.diffusion import load_base
from iy.errors import UserError
from iy.photos.run import run as take_photos
from iy.shapes.base import drawn
from tests import att_faces, curating
from tests.depth import THOROUGH, depth
from tests.tiny import tiny_base, tiny_params

SMALL = attention.Shape(48, 17, (attention.Layer(16, 64, 4, 2), attention.Layer(4, 64, 2, 1)))


def test_every_way_is_run_as_often_and_in_turns():
    said = []
    medians = measure.in_turns({"a": lambda: said.append("a"), "b": lambda: said.append("b")}, rounds=4, warm=1)
    assert set(medians) == {"a", "b"} and all(value >= 0 for value in medians.values())
    assert "".join(said) in ("baabbaabba", "abbaabbaab"), "who comes first changes every round"


def test_ours_without_padding_is_the_naive_form_with_it():
    torch.manual_seed(0)
    for layer in SMALL.layers:
        ways = attention.ways(SMALL, layer, 2, torch.device("cpu"), torch.float32)
        ours, naive, stock = (ways[name]() for name in ("ours", "naive", "stock"))
        assert ours.shape == naive.shape == stock.shape == (2, layer.positions, layer.channels)
        assert (ours - naive).abs().max() < 1e-5 and ours.std() > 0.01


def test_the_command_writes_ratios_of_whole_steps(tmp_path, monkeypatch):
    monkeypatch.setitem(attention.SHAPES, "studio", SMALL)
    out = tmp_path / "attention.json"
    said = CliRunner().invoke(app, ["bench", "attention", "--shape", "studio", "--rounds", "3", "--out", str(out)])
    assert said.exit_code == 0, said.output
    found = json.loads(out.read_text())
    rows, step = found["layers"]["studio"], measured(found["cases"])
    whole = {way: sum(row[f"{way}_ms"] * row["count"] for row in rows) for way in ("ours", "stock", "naive")}
    assert step == {way: pytest.approx(value, abs=0.006) for way, value in whole.items()}, "rounded to 0.01 ms"
    assert found["machine"]["threads"] >= 1 and found["read"]["clip"] < found["padded"]["clip"]


def measured(cases: list[dict]) -> dict[str, float]:
    """What each way of one case took, after a check of the ratios."""
    for one in cases:
        assert one["ratio"] == pytest.approx(one["ours"] / one["theirs"], abs=0.0001) and one["unit"]
    assert len({one["case"] for one in cases}) == 1 == len({one["ours"] for one in cases})
    return {"ours": cases[0]["ours"]} | {one["against"]: one["theirs"] for one in cases}


def test_json_is_one_object_that_says_what_was_measured_where_and_when(monkeypatch):
    monkeypatch.setitem(attention.SHAPES, "studio", SMALL)
    said = CliRunner().invoke(app, ["bench", "attention", "--shape", "studio", "--rounds", "1", "--json"])
    found = json.loads(said.stdout)
    assert {"cases", "machine", "date", "commit"} <= set(found) and len(found["commit"]) == 40
    assert {(one["case"], one["against"]) for one in found["cases"]} == {("studio", "stock"), ("studio", "naive")}


def test_an_unknown_shape_is_one_sentence():
    said = CliRunner().invoke(app, ["bench", "attention", "--shape", "sd3"])
    assert said.exit_code != 0 and "sd3" in said.output + str(said.exception)


@pytest.fixture(params=unet.SHAPES)
def thin(request, monkeypatch):
    """A published shape with few channels."""
    shape = dict(unet.SHAPES[request.param], sample_size=8, attention_head_dim=4)
    shape["block_out_channels"] = (32,) * len(shape["block_out_channels"])
    shape |= {"transformer_layers_per_block": 1} if request.param == "sdxl" else {}
    monkeypatch.setitem(unet.SHAPES, request.param, shape)
    return request.param


def test_a_step_of_a_whole_unet_is_the_same_naively(thin):
    ways = unet.ways(unet.SHAPES[thin], 2, torch.device("cpu"), torch.float32)
    ours, naive, stock = (ways[name]() for name in ("ours", "naive", "stock"))
    assert ours.shape == (2, 4, 8, 8)
    assert (ours - naive).abs().max() < 1e-5 < 1e-2 < (ours - stock).abs().max()


def test_whole_steps_are_compared(thin, tmp_path):
    out = tmp_path / "unet.json"
    asked = ["--shape", thin, "--rounds", "2", "--device", "cpu", "--dtype", "float32", "--out", str(out)]
    said = CliRunner().invoke(app, ["bench", "unet", *asked])
    assert said.exit_code == 0, said.output
    assert set(measured(json.loads(out.read_text())["cases"])) == {"ours", "stock", "naive"}


@pytest.fixture(scope="module", params=depth(["sdxl"], ["studio", "sdxl"]))
def tiny(request, tmp_path_factory):
    torch.set_num_threads(1)
    return tiny_params(tiny_base(tmp_path_factory.mktemp("base"), like=request.param))


def test_every_way_draws_and_naively_the_very_same(tiny):
    base = load_base(tiny.base)
    drawn = {way: generate.images(way, base, tiny.model, 3, 2)() for way in generate.WAYS}
    assert {image.shape for image in drawn.values()} == {(2, 64, 64, 3)}
    assert np.abs(drawn["ours"] - drawn["naive"]).max() < 1e-4 < np.abs(drawn["ours"] - drawn["stock"]).max()


def test_the_stock_pipeline_listens_to_the_face_and_leaves_the_base_alone(tiny):
    base = load_base(tiny.base)
    names, pipeline = set(base.unet.state_dict()), stock.pipeline(base)
    heard = []
    pipeline.unet.encoder_hid_proj.register_forward_hook(lambda *call: heard.append(call[2][0].shape))
    pipeline("a man", ip_adapter_image=Image.new("RGB", (32, 32)), num_inference_steps=2, height=64, width=64)
    width, tokens = base.unet.config.cross_attention_dim, 1 + 4
    assert heard == [(2, 1, tokens, width)] * 2, "both halves of guidance, every step"
    assert set(base.unet.state_dict()) == names and base.unet.config.encoder_hid_dim_type is None


def test_whole_generations_are_compared(tmp_path, monkeypatch):
    settings = tiny_params(tiny_base(tmp_path / "base"))
    monkeypatch.setattr("iy.params.load", lambda profile: settings)
    out, asked = tmp_path / "found.json", ["--steps", "2", "--device", "cpu", "--out"]
    said = CliRunner().invoke(app, ["bench", "generate", "--rounds", "2", *asked, str(out)])
    assert said.exit_code == 0, said.output
    assert set(measured(json.loads(out.read_text())["cases"])) == {"ours", "stock", "naive"}


@pytest.mark.skipif(not THOROUGH, reason="a process for each way: IY_THOROUGH=1")
def test_the_memory_of_whole_generations_is_compared(tmp_path, monkeypatch):
    settings = tiny_params(tiny_base(tmp_path / "base"))
    monkeypatch.setattr("iy.params.load", lambda profile: settings)
    out, asked = tmp_path / "found.json", ["--steps", "2", "--device", "cpu", "--out"]
    said = CliRunner().invoke(app, ["bench", "memory", *asked, str(out)])
    assert said.exit_code == 0, said.output
    found = json.loads(out.read_text())
    assert measured(found["cases"]) == {way: value["peak"] for way, value in found["megabytes"].items()}
    for value in found["megabytes"].values():
        assert 50 < value["start"] <= value["peak"] < 20_000, "megabytes of a process with torch in it"


def test_making_pairs_is_measured_beside_the_very_evaluations_it_asks_for(tiny_project, tmp_path):
    from iy.bench import synpairs

    found = synpairs.run(tiny_project, pairs=4, rounds=1)
    asked = tiny_project.synpairs
    a_pass = int(asked.steps * asked.strength)
    assert found["evaluations"] == asked.steps + asked.passes * a_pass, "one batch, both halves of guidance in one call"
    rate = measured(found["cases"])
    assert 0 < rate["ours"] < 1.2 * rate["the U-Net bare"], "pairs per second"


def test_a_table_is_measured_beside_the_pipeline_in_a_loop(tiny_project):
    from iy.bench import jobs

    small = {"jobs": tiny_project.jobs.model_copy(update={"batch": 2, "threads": 1})}
    small |= {"draw": tiny_project.draw.model_copy(update={"steps": 2})}
    settings = tiny_project.model_copy(update=small)
    found = jobs.run(settings, settings.bundle_dir(1), pictures=6, prompts=2, people=3, rounds=1)
    rate = measured(found["cases"])
    assert rate["ours"] > 0 < rate["the pipeline bare"] and found["batch"] == 2, "pictures per second"
    with pytest.raises(UserError, match="has 4 people, --people asks for 9: ask for fewer"):
        jobs.run(settings, settings.bundle_dir(1), pictures=6, prompts=2, people=9, rounds=1)


def test_curating_is_measured_beside_each_of_its_models(tmp_path, monkeypatch):
    from iy.bench import blip, curate

    monkeypatch.setattr(
        blip, "SHAPE", {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    )
    monkeypatch.chdir(tmp_path)
    att_faces.copy_folders(tmp_path / "in", persons=5, photos=3)
    settings = curating.settings(photos={"source": "folder", "path": "in"}, minimum_per_person=1)
    take_photos(settings)
    found = curate.run(settings, photos=15, captioned=15, workers=[1], rounds=1)
    captioned, faces = (
        [one for one in found["cases"] if one["case"] == name]
        for name in ("faces and captions, 1 core", "faces, 1 core")
    )
    for cases in (captioned, faces):
        slowest, everything = (one["theirs"] for one in cases)
        assert 0 < cases[0]["ours"] and 0 < everything < 1.2 * slowest and measured(cases), "photos per second"


@pytest.mark.parametrize("like", ["studio", "sdxl"])
def test_training_is_measured_beside_the_usual_way(tmp_path, monkeypatch, like):
    """What learns: ours, the adapter whether encoded beforehand or not, nothing in the bare U-Net."""
    settings = tiny_params(tiny_base(tmp_path / "base", like=like))
    monkeypatch.setattr("iy.params.load", lambda profile: settings)
    out = tmp_path / "train.json"
    asked = ["--rounds", "2", "--batch", "2", "--device", "cpu", "--no-memory", "--out", str(out)]
    said = CliRunner().invoke(app, ["bench", "train", *asked])
    assert said.exit_code == 0, said.output
    found = json.loads(out.read_text())
    assert set(measured(found["cases"])) == set(train.WAYS) and found["batch"] == 2
    assert found["trainable"]["bare"] == 0 < found["trainable"]["cached"] == found["trainable"]["in loop"]


def test_each_way_of_training_moves_what_learns_and_nothing_else(tmp_path):
    settings = train.without_identity(tiny_params(tiny_base(tmp_path / "base")))
    for way in train.WAYS:
        torch.manual_seed(0)
        base = drawn(settings.base, torch.device("cpu"), only_own=True)
        frozen = {name: weight.clone() for name, weight in base.unet.named_parameters()}
        make = {"ours": train.ours, "bare": train.bare}.get(way, lambda *two: train.usual(*two, cached=True))
        one, _ = make(base, settings)
        one()
        assert all(torch.equal(weight, frozen[name]) for name, weight in base.unet.named_parameters())


def test_steps_on_a_lent_gpu_share_the_time_and_fail_alone(tmp_path, root):
    said, todo = (
        [],
        [
            gpu.Step("sleepy", ["ui", "--port", "none"], 0.0, False),
            gpu.Step("wrong", ["params", "nobody"], 0.9, False),
            gpu.Step("right", ["params", "studio"], 0.9, False),
        ],
    )
    found = gpu.run(todo, 200, tmp_path / "out", said.append)
    assert [one["code"] for one in found.values()] == [None, 2, 0]
    assert "nobody" in (tmp_path / "out" / "wrong.log").read_text()
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == found
    late = gpu.run(todo, 1, tmp_path / "late", said.append)
    assert [one["seconds"] for one in late.values()] == [0.0] * 3 and "not begun" in said[-1]
