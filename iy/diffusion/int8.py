"""Linear layers with 8-bit weights, for text encoders too large for the memory at hand, and for a frozen U-Net in
training.

One scale per output channel and activations as they are (weight-only, absmax; as in LLM.int8(), arXiv 2208.07339,
without its outlier columns). bitsandbytes and torchao do more, but peft imports them wherever they are installed, which
costs every process seconds; here weights are widened for each call, and again in the backward pass instead of kept.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

KINDS = {"int8": (torch.int8, 127.0), "fp8": (torch.float8_e4m3fn, 448.0)}  # dtype and its largest value


class Int8Linear(nn.Module):
    """x (…, in) to (…, out) with `weight` in 8 bits (out, in) times `scale` (out, 1).

    int8: the error of a weight is scale / 2. fp8: a sixteenth of the weight, or 2⁻¹⁰ of scale. Neither is trained.
    """

    weight: torch.Tensor
    scale: torch.Tensor

    def __init__(self, linear: nn.Linear, kind: Literal["int8", "fp8"] = "int8"):
        super().__init__()
        dtype, largest = KINDS[kind]
        exact = linear.weight.detach().float()
        scale = exact.abs().amax(1, keepdim=True).clamp(min=1e-12) / largest
        values = exact / scale
        self.register_buffer("weight", (values.round() if kind == "int8" else values).to(dtype))
        self.register_buffer("scale", scale.to(linear.weight.dtype))
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            return Widened.apply(x, self.weight, self.scale, self.bias)
        return F.linear(x, wide(self.weight, self.scale, x.dtype), self.bias)


class Widened(torch.autograd.Function):
    """A linear layer whose wide weight lives as long as one product: autograd by itself would keep it."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None) -> Any:
        ctx.save_for_backward(weight, scale)
        ctx.dtype = x.dtype
        return F.linear(x, wide(weight, scale, x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        weight, scale = ctx.saved_tensors
        return (gradients[0] @ wide(weight, scale, gradients[0].dtype)).to(ctx.dtype), None, None, None


def wide(weight: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return weight.to(dtype) * scale.to(dtype)


def narrow(
    module: nn.Module, kind: Literal["int8", "fp8"] = "int8", only: Callable[[nn.Linear], bool] = lambda linear: True
) -> nn.Module:
    """`module` with every linear layer inside it in 8 bits: half the memory of bfloat16, a quarter of float32."""
    for child in list(module.modules()):
        for name, inner in child.named_children():
            if isinstance(inner, nn.Linear) and only(inner):
                setattr(child, name, Int8Linear(inner, kind))
    return module
