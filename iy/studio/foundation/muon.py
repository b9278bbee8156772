"""Muon (K. Jordan 2024, https://kellerjordan.github.io/posts/muon/): momentum whose singular values are all made one.

PyTorch's own takes matrices only and works in bfloat16, which processors without such instructions emulate; this one
takes convolutions too, as matrices of (out, in · height · width), and bfloat16 where it is faster.
"""

import torch

from iy.studio.foundation.precision import narrow

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # the quintic of the source
RMS = 0.2  # of an update, AdamW's usual: one learning rate serves both (arXiv 2502.16982, eq. 4)


def orthogonal(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The nearest matrix (m, n), roughly, whose singular values are one."""
    a, b, c = NEWTON_SCHULZ
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.T if matrix.shape[0] > matrix.shape[1] else x


class Muon(torch.optim.Optimizer):
    """For weights of two dimensions and more; weight decay is decoupled."""

    def __init__(
        self, weights: list[torch.nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.01
    ):
        super().__init__(weights, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                mean = self.state[weight].setdefault("mean", torch.zeros_like(weight))
                mean.lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(mean, group["momentum"]).flatten(1)
                size = group["lr"] * RMS * max(ahead.shape) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                turn = orthogonal(ahead.to(narrow(ahead.device))).to(weight.dtype)
                weight.add_(turn.reshape(weight.shape), alpha=-size)
