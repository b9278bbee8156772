"""AdamW for the trained weights: PyTorch's fused one, or one that spares memory.

Sparing: both moments in 8 bits (blockwise, as in Dettmers et al., arXiv 2110.02861), and weights in bfloat16 that are
rounded up or down at random, so that steps smaller than their precision count on average (Zamirai et al., arXiv
2010.06192). bitsandbytes and torchao have both; but peft imports them wherever they are installed, which costs every
process seconds (torchao's import alone 6), both compile before their first step (a minute and more on two cores), and
torchao's states are no plain tensors.
"""

from typing import Any

import torch
import torch.nn.functional as F

from iy import params

BLOCK = 256  # values that share a scale
SMALL = 4096  # weights of fewer values keep their moments in full, as in bitsandbytes: gains, biases, α


def adamw(
    matrices: list[torch.Tensor], vectors: list[torch.Tensor], rate: float, decay: float, savings: params.Savings
) -> torch.optim.Optimizer:
    """No weight decay on `vectors`: gains, biases and α."""
    groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    if savings.optimizer == "adamw" and savings.weights == "float32":
        return torch.optim.AdamW(groups, rate, fused=True)
    return LeanAdamW(groups, rate, eight_bit=savings.optimizer == "adamw8bit")


class LeanAdamW(torch.optim.Optimizer):
    """AdamW with moments in float32 or in 8 bits; bfloat16 weights are rounded stochastically.

    The states of a weight are plain tensors: `step` and, per moment, the values or their `_codes` and `_scales`. What
    is random follows PyTorch's generator of the weight's device.
    """

    def __init__(self, groups: Any, lr: float, *, eight_bit: bool, betas: tuple[float, float] = (0.9, 0.999)):
        self.eight_bit = eight_bit
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": 1e-8, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] # none is taken
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self.step_of(weight, group)

    def step_of(self, weight: torch.Tensor, group: dict[str, Any]) -> None:
        """`mean` is AdamW's first moment, `spread` the root of its second, whose range 8 bits hold."""
        assert weight.grad is not None
        state, gradient, (first, second) = self.state[weight], weight.grad.float(), group["betas"]
        count = state["step"] = state.get("step", torch.zeros(())) + 1
        mean = read(state, "mean", weight).lerp_(gradient, 1 - first)
        spread = read(state, "spread", weight).square_().lerp_(gradient.square(), 1 - second).sqrt_()
        divisor = (spread / (1 - second ** count.item()) ** 0.5).add_(group["eps"])
        value = weight.float() * (1 - group["lr"] * group["weight_decay"])
        write(weight, value.addcdiv_(mean, divisor, value=-group["lr"] / (1 - first ** count.item())))
        eight_bit = self.eight_bit and weight.numel() >= SMALL
        state |= {**kept("mean", mean, eight_bit), **kept("spread", spread, eight_bit)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Every state as it was: PyTorch's own would give them the weights' dtype."""
        weights = [weight for group in self.param_groups for weight in group["params"]]
        for index, states in state_dict["state"].items():
            device = weights[int(index)].device
            self.state[weights[int(index)]] = {
                name: value if name == "step" else value.to(device) for name, value in states.items()
            }


def read(state: dict[str, torch.Tensor], name: str, weight: torch.Tensor) -> torch.Tensor:
    """A moment as float32, of the weight's shape; zeros before the first step."""
    if name in state:
        return state[name]
    if f"{name}_codes" not in state:
        return torch.zeros(weight.shape, device=weight.device)
    return wide(state[f"{name}_codes"], state[f"{name}_scales"]).flatten()[: weight.numel()].view(weight.shape)


def kept(name: str, value: torch.Tensor, eight_bit: bool) -> dict[str, torch.Tensor]:
    if not eight_bit:
        return {name: value}
    codes, scales = narrow(value)
    if name == "spread":  # it divides: what is not zero must not become zero
        codes = torch.maximum(codes, (rows(value) > 0).to(torch.int8))
    return {f"{name}_codes": codes, f"{name}_scales": scales}


def rows(value: torch.Tensor) -> torch.Tensor:
    """Any tensor as (blocks, BLOCK), filled up with zeros."""
    return F.pad(value.flatten(), (0, -value.numel() % BLOCK)).view(-1, BLOCK)


def narrow(value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """int8 codes (blocks, BLOCK) and float32 scales (blocks, 1) of a tensor of any shape.

    Code k stands for ±(k / 127)² of its block's largest value: half of the codes lie below a quarter of it, where most
    moments are. A value becomes one of the two beside it at random, so that on average it is what it was: averages
    over a thousand steps move by less than a code at each.
    """
    values = rows(value)
    scale = values.abs().amax(1, keepdim=True).clamp(min=1e-30)
    square = (values.abs() / scale).mul_(127**2)
    below = square.sqrt().floor_()
    share = (square - below.square()) / (2 * below + 1)
    codes = (below + (torch.rand_like(share) < share)).clamp_(max=127)
    return (codes * values.sign()).to(torch.int8), scale


def wide(codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    root = codes.float() / 127
    return root * root.abs() * scales


def write(weight: torch.Tensor, value: torch.Tensor) -> None:
    """`value` float32 into the weight; into bfloat16 up or down at random, in proportion to how near each is."""
    if weight.dtype != torch.bfloat16:
        weight.copy_(value)
        return
    bits = value.view(torch.int32)
    bits = bits + torch.randint(0, 2**16, bits.shape, dtype=torch.int32, device=bits.device)
    weight.copy_((bits & -(2**16)).view(torch.float32))
