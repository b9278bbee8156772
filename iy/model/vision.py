"""The vision branch: a trainable CLIP tower and the projection of its embeddings to the width of the own text."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPVisionModelWithProjection

from iy.errors import UserError


class VisionBranch(nn.Module):
    """References to tokens: per reference one global embedding and all patch embeddings (docs/method.md §2)."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, tower: CLIPVisionModelWithProjection, mean: tuple[float, ...], std: tuple[float, ...], width: int
    ):
        super().__init__()
        config = tower.config
        if not hasattr(tower, "visual_projection"):
            raise UserError(
                f"base.vision: {type(tower).__name__} gives no global embedding: use CLIPVisionModelWithProjection"
            )
        self.tower = tower
        side, patch = config.image_size, config.patch_size
        if not (isinstance(side, int) and isinstance(patch, int)):
            raise UserError(
                f"base.vision: pictures of {side} pixels in patches of {patch}: use a tower that takes squares"
            )
        self.image_size = side
        self.tokens = 1 + (side // patch) ** 2
        self.whole = nn.Linear(config.projection_dim, width)
        self.patch = nn.Linear(config.hidden_size, width)
        self.norm = nn.LayerNorm(width)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, references: torch.Tensor, present: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Face crops (B, N, 3, H, W) in [-1, 1] and presence (B, N) to tokens (B, N·T, width) and mask (B, N·T)."""
        if references.ndim != 5 or references.shape[2] != 3 or present.shape != references.shape[:2]:
            raise UserError(
                f"references must be (B, N, 3, H, W) with a mask (B, N), got {tuple(references.shape)} and "
                f"{tuple(present.shape)}"
            )
        batch, count = present.shape
        seen = self.tower(pixel_values=self.normalise(references.flatten(0, 1)))
        tokens = self.project(seen.image_embeds, seen.last_hidden_state[:, 1:])
        mask = present.bool()[:, :, None].expand(batch, count, self.tokens)
        return tokens.reshape(batch, count * self.tokens, -1), mask.reshape(batch, -1)

    def project(self, whole: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """The tower's global (B, D_1) and patch embeddings (B, T - 1, D_2) as tokens (B, T, width)."""
        return self.norm(torch.cat([self.whole(whole)[:, None], self.patch(patches)], 1))

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels (B, 3, H, W) in [-1, 1] to the tower's size and statistics."""
        pixels = resize(pixels, self.image_size)
        return ((pixels / 2 + 0.5 - self.mean) / self.std).to(self.mean.dtype)


def resize(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """Pixels (B, 3, H, W) in [-1, 1] to (B, 3, size, size): what both training and drawing do to a reference."""
    if pixels.shape[-2:] != (size, size):
        pixels = F.interpolate(pixels.float(), (size, size), mode="bicubic", antialias=True)
    return pixels.clamp(-1, 1)
