"""Muon (K. Jordan 2024, https://kellerjordan.github.io/posts/muon/): momentum whose singular values are all made one.

PyTorch's own takes matrices only; this one takes convolutions too, as matrices of (out, in · height · width), those of
one shape together, and a rate that is a tensor, so that a step can be recorded as a CUDA graph.
"""

from collections import defaultdict

import torch

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # the quintic of the source
RMS = 0.2  # of an update, AdamW's usual: one learning rate serves both (arXiv 2502.16982, eq. 4)


def orthogonal(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The nearest matrices (N, m, n), roughly, whose singular values are one."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """For weights of two dimensions and more; weight decay is decoupled. lr: a tensor that the training changes."""

    def __init__(
        self, weights: list[torch.nn.Parameter], lr: torch.Tensor, momentum: float = 0.95, weight_decay: float = 0.01
    ):
        super().__init__(weights, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            alike = defaultdict(list)
            for i, weight in enumerate(group["params"]):
                alike[weight.flatten(1).shape if weight.is_cuda else i].append(weight)
            for weights in alike.values():
                ahead = torch.stack([self.ahead(weight, group["momentum"]).flatten(1) for weight in weights])
                size = group["lr"] * RMS * max(ahead.shape[1:]) ** 0.5
                narrow = torch.bfloat16 if ahead.is_cuda else ahead.dtype
                turns = orthogonal(ahead.to(narrow)).to(ahead.dtype) * size
                for weight, turn in zip(weights, turns, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(turn.reshape(weight.shape))

    def ahead(self, weight: torch.nn.Parameter, momentum: float) -> torch.Tensor:
        """The weight's gradient, smoothed, with Nesterov's look ahead."""
        if "mean" not in self.state[weight]:
            self.state[weight]["mean"] = torch.zeros_like(weight)
        mean = self.state[weight]["mean"]
        mean.lerp_(weight.grad, 1 - momentum)
        return weight.grad.lerp(mean, momentum)
