"""dlib's face recogniser in torch, with gradients: the same weights and numbers as `dlibnet`'s ONNX graph."""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from iy.faces.align import DLIB_150, similarity_transform
from iy.faces.dlibnet import BLOCKS, MEAN, SIDE, tensors


class DlibNet(nn.Module):
    """Chips (B, 3, 150, 150) in [-1, 1], made by `chips`, -> (B, 128), before the mean with the mirror image."""

    def __init__(self, path: Path):
        super().__init__()
        weights, self.layers = tensors(path.read_bytes()), nn.ModuleList()
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
        first, *inner = self.layers
        x = ((chips + 1) * 127.5 - self.mean) / 256
        x = F.max_pool2d(F.relu(first(x)), 3, 2)
        for a, b in zip(inner[::2], inner[1::2], strict=True):
            y = b(F.relu(a(x)))
            if a.stride != (1, 1):
                x = F.avg_pool2d(x, 2)
                x = F.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
                y = F.pad(y, (0, x.shape[3] - y.shape[3], 0, x.shape[2] - y.shape[2]))
            x = F.relu(x + y)
        return x.mean((2, 3)) @ self.out.to(x.dtype)


def convolution(weights, before: int, after: int, side: int, stride: int) -> nn.Conv2d:
    """The next convolution, with the affine layer that follows it folded in; dlib pads those that keep the size."""
    kernel, (gamma, beta) = next(weights), next(weights).reshape(2, after)
    layer = nn.Conv2d(before, after, side, stride, side // 2 if stride == 1 else 0)
    layer.weight.data = torch.from_numpy(
        kernel[:-after].reshape(after, before, side, side) * gamma[:, None, None, None]
    )
    layer.bias.data = torch.from_numpy(kernel[-after:] * gamma + beta)
    return layer


def chips(pictures: torch.Tensor, landmarks: np.ndarray) -> torch.Tensor:
    """Pictures (B, 3, h, w) -> (B, 3, 150, 150), their landmarks (B, 5, 2), in pixels, on dlib's template."""
    h, w = pictures.shape[2:]
    size = torch.tensor([w - 1, h - 1])
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    place = torch.stack([x, y, torch.ones_like(x)], -1).double()
    # Inverted, as OpenCV does: the least squares of the way back are not the same.
    turns = np.stack([inverse(similarity_transform(points, DLIB_150)) for points in landmarks])
    source = place @ torch.from_numpy(turns).transpose(1, 2)[:, None]
    grid = (2 * source / size - 1).float().to(pictures.device)  # bfloat16 would place it a quarter of a pixel off
    return F.grid_sample(pictures.float(), grid, padding_mode="border", align_corners=True)


def inverse(transform: np.ndarray) -> np.ndarray:
    """Of points' transform (2, 3)."""
    return np.linalg.inv(np.vstack([transform, [0, 0, 1]]))[:2]
