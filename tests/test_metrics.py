"""The one table of numbers: what is measured stands in it; page, plots, log and settings use its names."""

from typing import get_args

import pytest

from iy import metrics, params
from iy.evaluate import measure, page, plots


def row(value=0.5):
    return {"value": value, "low": value, "high": value, "n": 3}


def test_every_number_has_one_entry_with_a_meaning():
    names = [one.name for one in metrics.TABLE]
    assert len(names) == len(set(names))
    assert all(one.meaning and one.heading and one.better in ("high", "low", "") for one in metrics.TABLE)


def test_a_number_without_an_entry_is_not_reported():
    with pytest.raises(AssertionError, match="name these in iy/metrics.py: \\['beauty'\\]"):
        metrics.checked({"stage4": {"identity": row(), "beauty": row()}})


def test_the_plain_name_is_the_independent_recognisers_and_the_filters_carries_a_suffix():
    assert measure.RECOGNISERS == {"": "second", "_filter": "filter"}
    for name in ("identity", "identity_other", "top1", "copy_paste", "together"):
        assert {name, name + "_filter"} <= set(metrics.BY_NAME)


def test_dvc_shows_a_dozen_values():
    models = ("base", "pretrained", "stage1", "stage2", "stage3", "stage4", "real")
    found = metrics.headline({model: {one.name: row() for one in metrics.TABLE} for model in models})
    assert sum(len(values) for values in found.values()) == 12


def test_page_plots_and_gate_know_no_other_names():
    shown = {name for names in plots.CURVES.values() for name in names} | set(metrics.HEADLINE) | set(metrics.COMPARED)
    assert shown <= set(metrics.BY_NAME)
    for field in ("metric", "alignment"):
        names = get_args(params.Register.model_fields[field].annotation)
        assert all(metrics.BY_NAME[name].better == "high" for name in names)
    models = {name: {one.name: row() for one in metrics.TABLE} for name in ("base", "stage4")}
    text = "".join(str(block) for block in page.tables(models, 0.1))
    assert all(one.name in text for one in metrics.TABLE)


@pytest.mark.parametrize(
    "key, wrong", [("metric", "identiy"), ("alignment", "prompt_alignement"), ("metric", "copy_paste")]
)
def test_a_misspelt_name_is_refused_before_any_work(key, wrong):
    settings = params.load("studio").resolved()
    settings["register"] |= {key: wrong}
    with pytest.raises(
        params.UserError, match=f"register.{key} = '{wrong}'.*identity|register.{key} = '{wrong}'.*clip_score"
    ):
        params.parse(settings, "profiles/studio.yaml")
