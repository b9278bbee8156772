"""Several processes train one model as one process would: the same examples, the same losses, the same checkpoints."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from iy.errors import UserError
from iy.finetune import run
from iy.finetune.parallel import rows_of
from iy.params import Params
from tests import encoding
from tests.depth import THOROUGH, depth
from tests.tiny import tiny_base
from tests.together import together

STEPS = depth(4, 20)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Params:
    torch.set_num_threads(1)
    return encoding.settings(tiny_base(tmp_path_factory.mktemp("base")), checkpoint_every=2)


@pytest.fixture
def here(tiny, empty_project) -> Path:
    encoding.collection(tiny)
    return empty_project


def settings(tiny: Params, steps: int = STEPS, **parallel: object) -> Params:
    wanted = tiny.resolved()
    training = {"batch": 5, "validate_every": 3, "validation_images": 2, "drop_image": 0.3, "drop_text": 0.2}
    wanted["finetune"]["training"] |= training
    wanted["finetune"]["parallel"] |= parallel
    wanted["finetune"]["stages"]["1"] |= {"steps": steps, "warmup": 1, "learning_rate": 1e-3}
    wanted["draw"]["steps"] = 2
    return Params.model_validate(wanted)


def curves(kind: str) -> np.ndarray:
    return np.array(json.loads(Path("models/tiny/finetune1/training.json").read_text())[kind])


def bundle() -> dict[str, torch.Tensor]:
    folder = Path("models/tiny/finetune1")
    files = [load_file(path) for path in sorted(folder.rglob("*.safetensors"))]
    return {name: value for file in files for name, value in file.items()}


def compare(losses: np.ndarray, held: np.ndarray, weights: dict[str, torch.Tensor]) -> None:
    np.testing.assert_allclose(curves("loss"), losses, atol=1e-4)
    np.testing.assert_allclose(curves("validation_loss"), held, atol=1e-4)
    for name, value in bundle().items():
        torch.testing.assert_close(value, weights[name], atol=2e-3, rtol=0)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_several_processes_follow_the_losses_of_one(here, tiny):
    """Of five rows a batch two and three; then one goes on from what several left, and three from what two did."""
    alone = settings(tiny)
    run.run(alone, "1")
    wanted = curves("loss"), curves("validation_loss"), bundle()
    assert len(wanted[0]) == STEPS
    for sharding in ("none", "fsdp"):
        shutil.rmtree("models")
        one = settings(tiny, sharding=sharding)
        assert together(2, lambda one=one: run.run(one, "1")) == [0, 0]
        compare(*wanted)
        assert not list(Path(".iy/resume").rglob("*.safetensors")), "checkpoints go when the bundle is there"


def stop_after(step: int) -> None:
    """Make every training of this process end as after a signal, once `step` is done."""
    from iy.finetune.trainer import Trainer

    before = Trainer.anywhere
    Trainer.anywhere = lambda self, stopped: before(self, stopped or len(self.curves["loss"]) >= step)


def interrupted(count: int, wanted: Params) -> None:
    def work() -> None:
        stop_after(STEPS // 2 - 1)
        run.run(wanted, "1")

    assert together(count, work) == [3] * count


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("first", "then"),
    [
        (("fsdp", 2), ("fsdp", 3)),
        *(
            [
                (("fsdp", 2), ("none", 1)),
                (("none", 2), ("fsdp", 2)),
                (("none", 2), ("none", 3)),
                (("none", 1), ("fsdp", 2)),
            ]
            if THOROUGH
            else []
        ),
    ],
)
def test_another_number_of_processes_goes_on_with_the_same_examples(here, tiny, first, then):
    run.run(settings(tiny), "1")
    wanted = curves("loss"), curves("validation_loss"), bundle()
    shutil.rmtree("models")
    interrupted(first[1], settings(tiny, sharding=first[0]))
    [left] = Path(".iy/resume").rglob("step-*")
    assert left.name == f"step-{STEPS // 2 - 1:08d}"
    assert {path.suffix for path in left.iterdir()} == {".safetensors", ".json"}, "no pickle"
    assert len(list(left.glob("shard-*"))) == (first[1] if first[0] == "fsdp" else 0)
    assert together(then[1], lambda: run.run(settings(tiny, sharding=then[0]), "1")) == [0] * then[1]
    compare(*wanted)


def test_every_row_of_a_batch_belongs_to_one_process():
    class Place:
        def __init__(self, index, count):
            self.process_index, self.num_processes = index, count

    for count in (1, 2, 3, 5):
        parts = [rows_of(Place(index, count), 5) for index in range(count)]
        assert [row for part in parts for row in range(5)[part]] == list(range(5))
    with pytest.raises(UserError, match=r"batch = 5 is less than the 6 processes"):
        rows_of(Place(0, 6), 5)
