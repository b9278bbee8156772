"""A network that reads faces off decoded latents, for the U-Net's training: is it the expression, the age asked?

The error of v hardly notices: a few cells of 256, settled at noisy steps. This network does, and hands its gradient
through the decoder to the prediction. The probes, which judge the drawings, have no part in it.
"""

from collections.abc import Callable

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import nn
from torch.nn import functional as F

from foundation.autoencoder import pixels
from foundation.language import Heads, targets
from foundation.renders import SIDE
from foundation.train import Plan, fit
from iy import lexicon
from iy.evaluate.probes import mirror

RATE = 1.5e-3
NAMES = ["expression", "gaze", *lexicon.PERSON]
CELL, WINDOW = 4, 12  # pixels of a latent cell; latent cells that are decoded
FACE = (WINDOW - 2) * CELL  # pixels in the middle of the window that are read: its rim was decoded without neighbours
WIDTHS, FEATURES = (32, 64, 96, 128), 256


class FaceReader(nn.Module):
    """Faces (B, 3, 40, 40) in [-1, 1] -> features (B, 256), which `heads` classify."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTHS[0], 3, padding=1)
        self.halve = nn.ModuleList([nn.Conv2d(a, b, 3, 2, 1) for a, b in zip(WIDTHS, WIDTHS[1:], strict=False)])
        self.norm = nn.ModuleList([nn.GroupNorm(8, width) for width in WIDTHS[1:]])
        self.inner = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1) for width in WIDTHS[1:]])
        self.out = nn.Linear(WIDTHS[-1] * 25, FEATURES)
        self.heads = Heads(FEATURES, NAMES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.silu(self.stem(x))
        for halve, norm, inner in zip(self.halve, self.norm, self.inner, strict=True):
            x = F.silu(norm(halve(x)))
            x = x + F.silu(inner(x))
        return F.silu(self.out(x.flatten(1)))


def windows(boxes: np.ndarray) -> np.ndarray:
    """First column and row (N, 2), in latent cells, of the window around each face; boxes (N, 4) in pixels."""
    middle = np.nan_to_num((boxes[:, :2] + boxes[:, 2:]) / 2, nan=SIDE / 2)
    return np.clip(np.round(middle / CELL - WINDOW / 2), 0, SIDE // CELL - WINDOW).astype(int)


def decoded(vae: AutoencoderKL, latents: torch.Tensor, starts: np.ndarray) -> torch.Tensor:
    """Windows (B, 3, 48, 48) of what scaled latents (B, 4, 16, 16) show, with gradients."""
    parts = cut_out(latents, starts, WINDOW).contiguous(memory_format=torch.channels_last)
    return vae.decode(parts / vae.config.scaling_factor).sample


def cut_out(pictures: torch.Tensor, starts: np.ndarray, side: int) -> torch.Tensor:
    """Squares (B, C, side, side) of pictures (B, C, h, w), from column and row `starts` (B, 2)."""
    count, channels, _, width = pictures.shape
    x, y = torch.from_numpy(np.ascontiguousarray(starts.T)).to(pictures.device)
    along = torch.arange(side, device=pictures.device)
    places = ((y[:, None] + along)[:, :, None] * width + (x[:, None] + along)[:, None]).flatten(1)
    cut = pictures.flatten(2).gather(2, places[:, None].expand(-1, channels, -1))
    return cut.unflatten(2, (side, side))


def middle(windows: torch.Tensor) -> torch.Tensor:
    """The part (B, 3, 40, 40) of windows (B, 3, 48, 48) that is read."""
    return windows[:, :, CELL:-CELL, CELL:-CELL]


def train(
    images: np.ndarray,
    decoded: Callable[[], np.ndarray],
    starts: np.ndarray,
    attributes: list[dict[str, str]],
    plan: Plan,
    seed: int = 11,
) -> FaceReader:
    """`images`: the renders (N, 64, 64, 3); `decoded()`: after the autoencoder.

    Faces are moved by up to three pixels, mirrored, blurred and noised, as predictions are.
    """
    torch.manual_seed(seed)
    net, rng = FaceReader().to(memory_format=torch.channels_last), np.random.default_rng(seed)
    right, swap = targets(attributes, NAMES), {name: torch.tensor([*mirror(name), -1]) for name in NAMES}  # -1: unknown

    def loss(step: int) -> torch.Tensor:
        pick = rng.integers(len(starts), size=64 * plan.times)
        corner = starts[pick] * CELL + CELL + rng.integers(-3, 4, (len(pick), 2))
        pictures = images, decoded()
        faces = [cut(pictures[rng.integers(2)][i], *xy) for i, xy in zip(pick, corner, strict=True)]
        x = worn(pixels(np.stack(faces)).to(plan.device), rng)
        rows = torch.from_numpy(pick)
        truth = {name: value[rows].to(plan.device) for name, value in right.items()}
        if rng.random() < 0.5:
            x, truth = x.flip(3), {name: swap[name].to(value.device)[value] for name, value in truth.items()}
        features = F.dropout(net(x), 0.2)
        told = net.heads.loss(features, truth)
        expression = F.cross_entropy(net.heads.heads["expression"](features), truth["expression"])
        return told + 0.5 * expression

    return fit(plan, net, loss, decay=0.995, weight_decay=0.05)


def cut(picture: np.ndarray, x: int, y: int) -> np.ndarray:
    x, y = np.clip((x, y), 0, SIDE - FACE)
    return picture[y : y + FACE, x : x + FACE]


def worn(x: torch.Tensor, rng: np.random.Generator, most: float = 1.0) -> torch.Tensor:
    """Every picture a little blurred and noised, by its own measure, up to `most`."""
    share, noise = (
        torch.from_numpy(rng.uniform(0, most * top, (len(x), 1, 1, 1))).float().to(x.device) for top in (0.9, 0.12)
    )
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return torch.lerp(x, blurred, share) + noise * torch.randn_like(x)
