"""What an unfinished stage keeps is taken up by the same code, settings and data alone."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from iy import imports, resume
from iy.errors import UserError
from iy.params import Params
from tests.tiny import tiny_params


@pytest.fixture
def code(tmp_path, monkeypatch) -> Path:
    """A copy of the project's code that may be changed; what is kept is named by it."""
    copy = tmp_path / "code"
    shutil.copytree(imports.ROOT / "iy", copy / "iy", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(imports, "ROOT", copy)
    return copy


def change(file: Path) -> None:
    file.write_text(file.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")


def of_curate(settings: Params) -> Path:
    from iy.curate.run import work_folder

    return work_folder(settings)


def of_synpairs(settings: Params) -> Path:
    from iy.synpairs.shards import work_folder

    return work_folder(settings, "drawn by a model")


def of_evaluate(settings: Params) -> Path:
    from iy.evaluate.draw import work_folder

    return work_folder(settings, "stage4", None)


def of_finetune(settings: Params) -> Path:
    from iy.finetune.run import resume_dir

    return resume_dir(settings, {"stage": 1})


def of_encoded(settings: Params) -> Path:
    from iy.finetune.encode import place

    return place(settings, "texts", 32)


@pytest.mark.parametrize(
    "place, deciding, others",
    [
        (
            of_curate,
            ["curate/measure.py", "curate/captioner.py", "faces/align.py"],
            ["curate/split.py", "model/lora.py"],
        ),
        (
            of_synpairs,
            ["synpairs/make.py", "generate/draw.py", "lexicon.py"],
            ["synpairs/page.py", "curate/measure.py"],
        ),
        (
            of_evaluate,
            ["evaluate/draw.py", "model/attention.py", "storage.py"],
            ["evaluate/page.py", "finetune/run.py"],
        ),
        (
            of_finetune,
            ["finetune/trainer.py", "model/lora.py", "diffusion/encode.py"],
            ["evaluate/page.py", "report.py"],
        ),
        (
            of_encoded,
            ["diffusion/encode.py", "diffusion/int8.py", "finetune/encode.py"],
            ["model/lora.py", "finetune/trainer.py", "finetune/buckets.py"],
        ),
    ],
)
def test_code_that_decides_renames_what_is_kept_and_other_code_does_not(
    place: Callable[[Params], Path], deciding: list[str], others: list[str], code, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    settings = tiny_params(Path("base"))
    for stage in ("photos", "curate"):
        settings.data_dir(stage).mkdir(parents=True)
        (settings.data_dir(stage) / "photos.parquet").write_bytes(b"rows")
    named = [place(settings)]
    for file in [*others, "workers.py", "tracking/run.py"]:
        change(code / "iy" / file)
        assert place(settings) == named[0], file
    for file in deciding:
        change(code / "iy" / file)
        named.append(place(settings))
    assert len(set(named)) == 1 + len(deciding)


def test_settings_and_inputs_name_what_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings, table = tiny_params(Path("base")), tmp_path / "table"
    table.write_bytes(b"rows")

    def named(chosen: Params = settings) -> Path:
        return resume.work_folder(
            chosen, "synpairs", ["seed", "faces.minimum_score"], [table, {"a": 1}], ["iy.storage"]
        )

    first = named()
    assert named(settings.model_copy(update={"device": "auto"})) == first
    assert named(settings.model_copy(update={"seed": 5})) != first
    table.write_bytes(b"other rows")
    assert named() != first
    table.unlink()
    with pytest.raises(UserError, match="table does not exist: run the stage that writes it first"):
        named()


def test_an_interrupted_stage_goes_on_by_the_same_code_and_starts_anew_by_another(tiny_project, code, monkeypatch):
    from iy.synpairs import shards
    from iy.synpairs.run import run

    monkeypatch.setattr(shards, "SHARD", 2)
    made, make = [], shards.Maker.make

    def stops_at_the_second(self, plans):
        made.append(plans[0].reference["person"])
        if made[-1] == "s2" and made.count("s2") < 3:
            raise KeyboardInterrupt
        return make(self, plans)

    monkeypatch.setattr(shards.Maker, "make", stops_at_the_second)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(tiny_project)
    change(code / "iy" / "synpairs" / "make.py")
    run(tiny_project)
    assert made == ["s1", "s2", "s2", "s1", "s2", "s3"]
