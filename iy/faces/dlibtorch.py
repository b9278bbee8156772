"""dlib's face recogniser in torch, with gradients: the same weights and numbers as `dlibnet`'s ONNX graph."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from iy.faces.align import DLIB_150, similarity_transform
from iy.faces.dlibnet import BLOCKS, MEAN, SIDE


class DlibNet(nn.Module):
    """Chips (B, 3, 150, 150) in [-1, 1], made by `chips`, -> (B, 128), before the mean with the mirror image.

    weights: the layers' in their order, as `dlibnet.tensors` reads them from dlib's file.
    """

    mean: torch.Tensor

    def __init__(self, weights: Iterator[np.ndarray]):
        super().__init__()
        self.layers = nn.ModuleList()
        self.layers.append(convolution(weights, 3, 32, 7, 2))
        before = 32
        for after, halves in BLOCKS:
            self.layers.append(convolution(weights, before, after, 3, 2 if halves else 1))
            self.layers.append(convolution(weights, after, after, 3, 1))
            before = after
        self.out = nn.Parameter(torch.from_numpy(next(weights).reshape(256, 128).copy()))
        self.register_buffer("mean", torch.from_numpy(MEAN).view(3, 1, 1), persistent=False)
        self.requires_grad_(False)

    def forward(self, chips: torch.Tensor) -> torch.Tensor:
        return self.vector(self.maps(chips)[-1])

    def vector(self, last: torch.Tensor) -> torch.Tensor:
        """The last block's map -> (B, 128)."""
        return last.mean((2, 3)) @ self.out.to(last.dtype)

    def maps(self, chips: torch.Tensor) -> list[torch.Tensor]:
        """What each residual block makes of the chips (B, channels, height, width)."""
        first, *inner = self.layers
        x, maps = ((chips + 1) * 127.5 - self.mean) / 256, []
        x = F.max_pool2d(F.relu(first(x)), 3, 2)
        for a, b in zip(inner[::2], inner[1::2], strict=True):
            y = b(F.relu(a(x)))
            if a.stride != (1, 1):
                x = F.avg_pool2d(x, 2)
                x = F.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
                y = F.pad(y, (0, x.shape[3] - y.shape[3], 0, x.shape[2] - y.shape[2]))
            x = F.relu(x + y)
            maps.append(x)
        return maps


def convolution(weights, before: int, after: int, side: int, stride: int) -> nn.Conv2d:
    """The next convolution, with the affine layer that follows it folded in; dlib pads those that keep the size."""
    kernel, (gamma, beta) = next(weights), next(weights).reshape(2, after)
    layer = nn.Conv2d(before, after, side, stride, side // 2 if stride == 1 else 0)
    layer.weight.data = torch.from_numpy(
        kernel[:-after].reshape(after, before, side, side) * gamma[:, None, None, None]
    )
    layer.bias = nn.Parameter(torch.from_numpy(kernel[-after:] * gamma + beta))
    return layer


def chips(pictures: torch.Tensor, landmarks: np.ndarray) -> torch.Tensor:
    """Pictures (B, C, h, w) -> (B, C, 150, 150), their landmarks (B, 5, 2), in pixels, on dlib's template."""
    device, (h, w) = pictures.device, pictures.shape[2:]
    there = np.concatenate([similarity_transform(landmarks, DLIB_150), np.tile([0, 0, 1.0], (len(landmarks), 1, 1))], 1)
    # Inverted, as OpenCV does: the least squares of the way back are not the same.
    back = torch.from_numpy(np.linalg.inv(there)[:, :2]).to(device)
    y, x = torch.meshgrid(*2 * [torch.arange(SIDE, device=device)], indexing="ij")
    source = torch.stack([x, y, torch.ones_like(x)], -1).double() @ back.transpose(1, 2)[:, None]
    # Single precision is needed: bfloat16 would place it a quarter of a pixel off.
    grid = (2 * source / torch.tensor([w - 1, h - 1], device=device) - 1).float()
    return F.grid_sample(pictures.float(), grid, padding_mode="border", align_corners=True)
