"""Linear layers with 8-bit weights, for text encoders too large for the memory at hand.

One scale per output channel and activations as they are (weight-only, absmax; as in LLM.int8(), arXiv 2208.07339,
without its outlier columns). bitsandbytes and torchao do more, but peft imports them wherever they are installed, which
costs every process seconds; here weights are widened for each call, which runs once per prompt.
"""

import torch
import torch.nn.functional as F
from torch import nn


class Int8Linear(nn.Module):
    """x (…, in) to (…, out) with `weight` int8 (out, in) times `scale` (out, 1); the error of a weight is scale / 2."""

    weight: torch.Tensor
    scale: torch.Tensor

    def __init__(self, linear: nn.Linear):
        super().__init__()
        wide = linear.weight.detach().float()
        scale = wide.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
        self.register_buffer("weight", (wide / scale).round().to(torch.int8))
        self.register_buffer("scale", scale.to(linear.weight.dtype))
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight.to(x.dtype) * self.scale.to(x.dtype), self.bias)


def narrow(module: nn.Module) -> nn.Module:
    """`module` with every linear layer inside it in 8 bits: half the memory of bfloat16, a quarter of float32."""
    for child in list(module.modules()):
        for name, inner in child.named_children():
            if isinstance(inner, nn.Linear):
                setattr(child, name, Int8Linear(inner))
    return module
