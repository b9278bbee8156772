"""A plan is counts over rates: more photos cost what grows with photos, and what does not fit is said."""

import json

import pytest

from iy import overrides, params, project
from iy.errors import UserError
from iy.plan import counts, history, rates, run, stages, table
from iy.shapes.memory import Held
from iy.shapes.work import Step
from tests.tiny import tiny_base, tiny_params

RATES = rates.Rates(
    dict.fromkeys(rates.KINDS, 1e12), {"read": 0.1, "open": 0.01, "faces": 0.2, "render": 1.0}, 10, 80, "test"
)
STEP = Step(3e12, 10**9, 5e9, 4e9, 8e9, 4e9, 30e9)
HELD = {name: Held(name, {"working": 70e9}, "x") for name in ("encode", "train", "synpairs", "evaluate")}
UNIT = stages.Unit(2e12, 1e12, 1e12, 3e12, STEP, 4e12, 4e12, 1e6, 3e5, 2e10, HELD)
GPU = stages.Machine(RATES, 1, 16, cpu=False)


@pytest.fixture
def sdxl() -> params.Params:
    return params.load("sdxl")


def test_people_are_split_before_anything_is_counted(sdxl):
    found = counts.estimate(sdxl, 10_000, per_person=10, kept=0.5)
    assert found.people == 1000 and found.accepted == 5000
    assert found.train == (1000 - 51 - 16) * 5 and found.pairs == (1000 - 51 - 16) * 4
    assert (counts.filled(600, 36), counts.filled(12, 36)) == (2 * 288 + 108, 36), "batches are filled up"
    assert found.drawn == 5 * (12 * 256 + 248) + 56, "51 people and 65 prompts by five models, and pictures of two"
    assert counts.examples(sdxl, found, sdxl.finetune.stages["3"]) == round(0.5 * found.train)


def test_photos_grow_and_steps_do_not(sdxl):
    def of(photos: int) -> dict[str, stages.Stage]:
        return {one.name: one for one in stages.everything(sdxl, counts.estimate(sdxl, photos, 10, 1.0), UNIT, GPU)}

    small, large = of(10_000), of(80_000)
    assert (
        list(small) == "photos curate finetune1 synpairs finetune2 select finetune3 finetune4 evaluate register".split()
    )
    for name in ("photos", "curate"):
        fixed = stages.fixed(name, GPU)
        assert large[name].seconds - fixed == pytest.approx(8 * (small[name].seconds - fixed))
    assert small["evaluate"].seconds == large["evaluate"].seconds
    stage = sdxl.finetune.stages["1"]
    encoded = (counts.estimate(sdxl, 10_000, 10, 1.0).train + 160) * (3 + 2 * 0.01 * 1.536**2)
    steps = 4 * stage.steps + 20 * 16 / 3  # accumulated; a validation is forward alone
    drawing = 20 * 16 * (30 * 4 + 3 + 1)
    assert small["finetune1"].seconds == pytest.approx(stages.fixed("finetune", GPU) + encoded + 3 * steps + drawing)


def test_what_does_not_fit_is_said_with_a_setting(sdxl):
    number = counts.estimate(sdxl, 1_000_000, 10, 1.0)
    small = GPU._replace(rates=RATES._replace(memory=48))
    said = table.advice(sdxl, number, UNIT, small, stages.everything(sdxl, number, UNIT, small), 8e9)
    assert any(line.startswith("train: 70.0 GB on a GPU of 48 GB") for line in said)
    assert any(line.startswith("curate: ") and "of memory" in line for line in said)
    assert any("curate.captioner are not counted" in line for line in said)
    assert not any("workers.map" in line for line in said)
    eight = GPU._replace(gpus=8)
    more = table.advice(sdxl, number, UNIT, eight, stages.everything(sdxl, number, UNIT, eight), 8e9)
    assert any(line.startswith("synpairs: ") and "workers.map: ray" in line for line in more)
    assert any("finetune.stages.1.steps=" in line for line in said), "20,000 steps of 8 do not see a million photos"


def test_examples_are_encoded_once_for_all_stages_and_lie_on_disk(sdxl):
    number = counts.estimate(sdxl, 1_000_000, 10, 1.0)
    assert [stages.encoded(stage, sdxl, number)[0] for stage in "1234"] == [
        number.train + number.validation,
        number.pairs,
        0,
        0,
    ]
    first, third = (stages.finetune(stage, sdxl, number, UNIT, GPU) for stage in "13")
    assert first.disk > third.disk + 1e12 and first.host < 20e9
    eight = stages.finetune("1", sdxl, number, UNIT, GPU._replace(gpus=8))
    assert eight.seconds < first.seconds / 3, "encoding is shared out"
    together = overrides.apply(sdxl, ["finetune.encoding=batches"])
    assert stages.encoded("3", together, number) == (0, counts.examples(sdxl, number, sdxl.finetune.stages["3"]))


def test_without_a_gpu_its_memory_is_the_processs(sdxl):
    number = counts.estimate(sdxl, 1000, 10, 1.0)
    gpu, cpu = (stages.evaluate(sdxl, number, UNIT, GPU._replace(cpu=cpu)) for cpu in (False, True))
    assert cpu.gpu == 0 and cpu.host > gpu.host + 60e9


def test_the_last_run_corrects_what_does_not_grow():
    now, then = stages.Stage("curate", 800, 0, 0, 0), stages.Stage("curate", 100, 0, 0, 0)
    assert history.corrected([now], [then], {"curate": 130})[0].seconds == 830
    assert history.corrected([now], [then], {})[0].seconds == 800


def test_an_unknown_gpu_and_an_unmeasured_machine_are_one_sentence(empty_project):
    for gpu, word in (("tpu", "known are h100"), ("here", "--measure")):
        with pytest.raises(UserError, match=word):
            rates.of(gpu, "studio")
    rates.keep("studio", RATES)
    assert rates.of("here", "studio") == RATES
    assert json.loads((project.state() / "rates.json").read_text())["studio"]["start"] == 10


def test_a_whole_plan_is_a_row_a_stage(tmp_path):
    settings = tiny_params(tiny_base(tmp_path))
    said = run.lines(settings, run.Asked(1_000_000, "h100", 8, None, None, 10, 0.7, False))
    assert said[0].startswith("1,000,000 photos, 8 x h100") and "not measured" in said[0]
    assert [line.split()[0] for line in said[2:4]] == ["stage", "photos"]
    assert next(line for line in said if line.startswith("all"))
