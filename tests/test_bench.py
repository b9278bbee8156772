"""Benchmarks measure what they say: the same function, done in different ways, in turns."""

import json

import pytest
import torch
from typer.testing import CliRunner

from iy.bench import attention, measure
from iy.cli import app

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
    step = found["studio"]["step_ms"]
    assert step["ours"] == pytest.approx(
        sum(row["ours_ms"] * row["count"] for row in found["studio"]["layers"]), abs=0.02
    )
    assert found["studio"]["ours_to_stock"] == pytest.approx(step["ours"] / step["stock"], rel=0.02)
    assert found["machine"]["threads"] >= 1 and found["read"]["clip"] < found["padded"]["clip"]


def test_an_unknown_shape_is_one_sentence():
    said = CliRunner().invoke(app, ["bench", "attention", "--shape", "sd3"])
    assert said.exit_code != 0 and "sd3" in said.output + str(said.exception)
