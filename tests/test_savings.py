"""Every saving beside the plain form: the same values where it changes none, near ones where it rounds."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from iy.diffusion import load_base
from iy.diffusion.int8 import Int8Linear, narrow
from iy.errors import UserError
from iy.finetune import data, savings
from iy.finetune.average import averaged
from iy.finetune.checkpoint import load_checkpoint, save_checkpoint
from iy.finetune.optimizer import LeanAdamW, wide, write
from iy.finetune.optimizer import narrow as in_8_bits
from iy.finetune.trainer import Trainer
from iy.model import Personaliser
from iy.params import Params
from tests import encoding
from tests.tiny import tiny_base


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Iterator[tuple]:
    """Settings, base and encoded examples."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("project")
    wanted = encoding.settings(tiny_base(folder / "base"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        encoding.collection(wanted)
        base = load_base(wanted.base)
        yield wanted, base, data.load_examples(wanted, wanted.finetune.stages["1"], base, 32)


def changed(wanted: Params, precision: str = "no", **kept: object) -> Params:
    value = wanted.resolved()
    value["finetune"]["savings"] |= kept
    value["finetune"]["training"] |= {"precision": precision, "validate_every": 3, "validation_batches": 1}
    return Params.model_validate(value)


def trainer(tiny: tuple, steps: int = 3, precision: str = "no", **kept: object) -> Trainer:
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    settings, base, (train, held) = tiny
    settings = changed(settings, precision, **kept)
    plan = settings.finetune.stages["1"].model_copy(update={"steps": steps, "warmup": 1, "learning_rate": 1e-3})
    return Trainer(Personaliser(base, settings.model), base.scheduler, train, held, settings.finetune, plan, seed=0)


def gradients(engine: Trainer) -> dict[str, torch.Tensor]:
    engine.model.train()
    engine.batch_loss(0, 0).backward()
    return {name: weight.grad for name, weight in engine.weights.items()}


def losses(engine: Trainer) -> np.ndarray:
    return np.array(engine.train()["loss"])[:, 1]


@pytest.fixture(scope="module")
def plain(tiny) -> dict[str, torch.Tensor]:
    return gradients(trainer(tiny))


def check_same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], tolerance: float) -> None:
    largest = max(value.abs().max().item() for value in wanted.values())
    for name, value in found.items():
        torch.testing.assert_close(value, wanted[name], rtol=0, atol=tolerance * largest)


def saved_bytes(engine: Trainer) -> int:
    """What autograd keeps for the backward pass."""
    kept: dict[int, int] = {}

    def keep(value: torch.Tensor) -> torch.Tensor:
        kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    engine.model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        engine.batch_loss(0, 0)
    return sum(kept.values())


def test_checkpointing_keeps_less_and_gives_the_same_gradients(tiny, plain):
    engine = trainer(tiny, checkpointing=True)
    check_same(gradients(engine), plain, 1e-6)
    assert saved_bytes(trainer(tiny, checkpointing=True)) < 0.6 * saved_bytes(trainer(tiny))


def test_the_compiled_step_is_one_graph_with_the_same_gradients(tiny, plain, monkeypatch):
    """Without generating code, for which every machine would need a compiler: `fullgraph` refuses any break."""
    compile = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **how: compile(self, backend="aot_eager", **how))
    check_same(gradients(trainer(tiny, compile=True)), plain, 1e-5)


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_a_frozen_base_in_8_bits_trains_nearly_alike(tiny, plain, kind):
    engine = trainer(tiny, frozen=kind)
    narrowed = [module for module in engine.model.unet.modules() if isinstance(module, Int8Linear)]
    assert len(narrowed) > 20 and not any(isinstance(module, nn.Linear) for one in narrowed for module in one.modules())
    found = gradients(engine)
    together = torch.cat([value.flatten() for value in found.values()])
    wanted = torch.cat([plain[name].flatten() for name in found])
    assert torch.cosine_similarity(together, wanted, 0) > 0.98
    assert not torch.equal(together, wanted)


def test_a_narrow_layer_keeps_its_8_bits_for_the_backward_pass_and_no_wide_weight():
    torch.manual_seed(0)
    plain = nn.Linear(64, 32)
    layer, x = Int8Linear(plain, "fp8"), torch.randn(3, 64, requires_grad=True)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda value: kept.append(value) or value, lambda value: value):
        y = layer(x)
    assert {value.dtype for value in kept if value.ndim == 2 and value.shape[1] > 1} == {torch.float8_e4m3fn}
    y.sum().backward()
    exact = wide_of(layer).sum(0).expand(3, -1)
    torch.testing.assert_close(x.grad, exact)
    assert (wide_of(layer) - plain.weight).abs().max() < plain.weight.abs().max() / 16


def wide_of(layer: Int8Linear) -> torch.Tensor:
    return layer.weight.float() * layer.scale


def test_lean_adamw_is_adamw_and_in_8_bits_nearly():
    torch.manual_seed(0)
    start, sizes = torch.randn(64, 128), torch.rand(64, 128) * 10
    ways = {"plain": None, "lean": False, "8 bits": True}
    found = {}
    for name, eight_bit in ways.items():
        weight = nn.Parameter(start.clone())
        group = [{"params": [weight], "weight_decay": 0.01}]
        optimizer = torch.optim.AdamW(group, 1e-3) if eight_bit is None else LeanAdamW(group, 1e-3, eight_bit=eight_bit)
        numbers = torch.Generator().manual_seed(1)
        for _ in range(100):
            weight.grad = sizes * (weight.detach() + torch.randn(64, 128, generator=numbers))
            optimizer.step()
        found[name] = weight.detach() - start
        moments = optimizer.state[weight].values()
        held = sum(value.nbytes for value in moments)
        assert held < (0.27 if eight_bit else 1.01) * 2 * start.nbytes
    torch.testing.assert_close(found["lean"], found["plain"], atol=1e-5, rtol=0)
    assert torch.cosine_similarity(found["8 bits"].flatten(), found["plain"].flatten(), 0) > 0.99


def test_8_bits_are_right_on_average_and_near_at_once():
    value = torch.cat([torch.linspace(-1, 1, 256), torch.linspace(0, 1e-6, 300)])
    several = torch.stack([wide(*in_8_bits(value)).flatten()[:556] for _ in range(400)])
    torch.testing.assert_close(several.mean(0)[:256], value[:256], atol=3e-3, rtol=0)
    assert (several[:, :256] - value[:256]).abs().max() < 2 / 127 + 1e-6
    assert several[:, 256:].max() <= 1e-6 and several[:, 400:].any()


def test_bfloat16_weights_are_rounded_right_on_average():
    value = torch.tensor([1 + 2.0**-10, -3.1, 1e-8]).repeat(20000, 1)
    weight = torch.zeros(20000, 3, dtype=torch.bfloat16)
    write(weight, value)
    assert ((weight.float() - value).abs() <= value.abs() * 2**-7).all()
    torch.testing.assert_close(weight.float().mean(0), value[0], rtol=3e-4, atol=0)


def test_steps_smaller_than_bfloat16_tells_are_taken(tiny):
    engine = trainer(tiny, precision="bf16", weights="bfloat16", optimizer="adamw8bit", steps=6)
    before = {name: weight.detach().clone() for name, weight in engine.weights.items()}
    assert {weight.dtype for weight in before.values()} == {torch.bfloat16}
    assert np.isfinite(losses(engine)).all()
    moved = [not torch.equal(before[name].float(), weight.float()) for name, weight in engine.weights.items()]
    assert sum(moved) > 0.9 * len(moved)
    assert {weight.dtype for weight in engine.weights.values()} == {torch.float32}, "the average is finer"


def test_the_average_on_the_cpu_is_the_one_on_the_device(tiny):
    """And reading the losses at times only changes none of them."""
    engines = trainer(tiny, steps=5), trainer(tiny, steps=5, average="cpu", fetch_every=4)
    curves = [engine.train() for engine in engines]
    assert curves[0] == curves[1]
    for name, weight in engines[0].weights.items():
        assert torch.equal(weight, engines[1].weights[name])


def test_an_average_of_bfloat16_weights_moves_by_less_than_they_tell():
    weight = nn.Parameter(torch.ones(10, dtype=torch.bfloat16))
    for where in ("device", "cpu"):
        ema = averaged([weight], 0.9999, torch.device("cpu"), where)
        ema.optimization_step = 100000
        weight.data.fill_(2)
        ema.step([weight])
        ema.finish()
        torch.testing.assert_close(ema.shadow_params[0], torch.full((10,), 1.0001))
        weight.data.fill_(1)


def test_a_diverged_loss_is_told_with_its_step_though_read_later(tiny):
    engine = trainer(tiny, steps=6, fetch_every=5)
    steps = engine.train_step
    engine.train_step = lambda step: steps(step) * (float("nan") if step == 2 else 1)
    with pytest.raises(UserError, match="became nan at step 3"):
        engine.train()


@pytest.mark.parametrize("eight_bit", [False, True])
def test_the_lean_optimiser_goes_on_from_a_checkpoint_to_the_same_bytes(tmp_path: Path, eight_bit):
    def begin() -> tuple[nn.Parameter, LeanAdamW]:
        weight = nn.Parameter(torch.linspace(-1, 1, 8192).bfloat16().view(64, 128))
        return weight, LeanAdamW([{"params": [weight]}], 1e-3, eight_bit=eight_bit)

    def go(weight: nn.Parameter, optimizer: LeanAdamW, steps: range) -> None:
        for step in steps:
            torch.manual_seed(step)
            weight.grad = torch.randn(64, 128).bfloat16()
            optimizer.step()

    weight, optimizer = begin()
    go(weight, optimizer, range(3))
    save_checkpoint(
        tmp_path, step=3, weights={"w": weight}, ema=[], ema_step=3, optimizer=optimizer, scaler=None, curves={}
    )
    go(weight, optimizer, range(3, 6))
    other, again = begin()
    state = load_checkpoint(tmp_path, weights={"w": other}, ema=[], optimizer=again)
    assert state is not None and state["step"] == 3
    go(other, again, range(3, 6))
    assert torch.equal(weight, other) and (weight.detach() != begin()[0]).any()


def test_what_does_not_go_together_is_refused(tiny):
    wanted = tiny[0].finetune

    def check(precision: str = "bf16", sharding: str = "fsdp", **kept: object) -> None:
        savings.check(
            wanted.model_copy(
                update={
                    "savings": wanted.savings.model_copy(update=kept),
                    "parallel": wanted.parallel.model_copy(update={"sharding": sharding}),
                    "training": wanted.training.model_copy(update={"precision": precision}),
                }
            )
        )

    check(weights="bfloat16", checkpointing=True)
    for name, refused in (
        ("compile", {"compile": True}),
        ("adamw8bit", {"optimizer": "adamw8bit"}),
        ("int8", {"frozen": "int8"}),
        ("fp16", {"precision": "fp16"}),
    ):
        with pytest.raises(UserError, match=f"{name}.*fsdp"):
            check(**refused)
        check(sharding="none", **refused)
    with pytest.raises(UserError, match="precision to bf16"):
        check(weights="bfloat16", precision="no")


def test_only_frozen_layers_become_narrow():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4).requires_grad_(False))
    narrow(module, "int8", only=savings.frozen)
    assert isinstance(module[0], nn.Linear) and isinstance(module[1], Int8Linear)
