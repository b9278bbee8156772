"""The whole stage with other generators and refiners than the bundle."""

import shutil

import pytest

from iy import params, records
from iy.synpairs import models, page
from tests.pair_models import settings
from tests.pairs import files


def chosen_of(project: params.Params, published, **changes) -> params.Params:
    """`tiny_project`, drawn and refined by what is `published`."""
    theirs = settings(*published, **changes).synpairs
    kept = {name: getattr(project.synpairs, name) for name in ("pairs_per_person", "false_match_rate")}
    return project.model_copy(update={"synpairs": theirs.model_copy(update=kept)})


def test_the_whole_stage_draws_and_refines_without_the_bundle(published, tiny_project):
    from iy.synpairs.run import run

    shutil.rmtree(tiny_project.bundle_dir(1))
    chosen = chosen_of(tiny_project, published)
    run(chosen)
    first = files(chosen)
    rows = records.read(chosen.data_dir("synpairs") / "pairs.parquet", records.PAIR)
    assert len(rows) == 6 and all(row["similarity"] == [None] * 3 for row in rows), "before, and two passes"
    assert {row["model"] for row in rows} == {models.names_of(chosen)}
    html = (chosen.report_dir("synpairs") / "index.html").read_text()
    assert f"Drawn by {published[1]}" in html and "refined by ip_adapter" in html
    run(chosen)
    assert files(chosen) == first


@pytest.mark.parametrize("published", ["sdxl"], indirect=True)
def test_a_stage_without_a_refiner_judges_the_first_picture_alone(published, tiny_project):
    from iy.synpairs.run import run

    chosen = chosen_of(tiny_project, published, refiner="none", refiner_model=None)
    run(chosen)
    rows = records.read(chosen.data_dir("synpairs") / "pairs.parquet", records.PAIR)
    assert all(len(row["similarity"]) == 1 for row in rows)
    html = (chosen.report_dir("synpairs") / "index.html").read_text()
    assert "refined by nothing" in html and "pass 1" not in html


@pytest.mark.parametrize("published", ["sdxl"], indirect=True)
def test_the_bundle_refines_what_a_generator_drew(published, tiny_project):
    from iy.synpairs.run import run

    chosen = chosen_of(tiny_project, published, refiner="bundle", refiner_model=None)
    run(chosen)
    rows = records.read(chosen.data_dir("synpairs") / "pairs.parquet", records.PAIR)
    bundle = models.names_of(tiny_project)
    assert {row["model"] for row in rows} == {f"{models.pipeline_name(chosen.synpairs.generator)} + {bundle}"}
    assert len(bundle) == 64 and all(len(row["similarity"]) == 3 for row in rows)


def test_the_gain_of_a_pass_is_over_pairs_whose_face_was_found_in_both():
    rows = [{"similarity": one, "kept_pass": 0} for one in ([0.2, 0.5], [None, 0.9], [0.4, 0.5], [0.3, None])]
    before, after = page.by_pass(rows)
    assert before["gain"] == 0 and after["gain"] == pytest.approx(0.2)
