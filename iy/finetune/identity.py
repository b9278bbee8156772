"""The identity loss (our choice; the paper has none): does the predicted picture show the person of the target?

A small network reads who it is off the latents themselves, so nothing is decoded. It belongs to one autoencoder and
ships beside it; its makers are in `foundation/identity.py`.
"""

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from iy.errors import UserError, one_line
from iy.storage import atomic_folder, write_json

WEIGHTS, SHAPE = "identity.safetensors", "identity.json"


class IdentityNet(nn.Module):
    """Latents (B, C, h, h), scaled as the U-Net sees them -> (B, 128): photos of one person point the same way."""

    def __init__(self, channels: int, side: int, width: int = 40):
        super().__init__()
        self.shape = {"channels": channels, "side": side, "width": width}
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.halve = nn.ModuleList([nn.Conv2d(width * 2**k, width * 2 ** (k + 1), 3, 2, 1) for k in range(2)])
        self.norm = nn.ModuleList([nn.GroupNorm(8, width * 2 ** (k + 1)) for k in range(2)])
        self.inner = nn.ModuleList(
            [nn.Conv2d(width * 2 ** (k + 1), width * 2 ** (k + 1), 3, padding=1) for k in range(2)]
        )
        self.out = nn.Linear(4 * width * 4, 128)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.silu(self.stem(x))
        for halve, norm, inner in zip(self.halve, self.norm, self.inner, strict=True):
            x = F.silu(norm(halve(x)))
            x = x + F.silu(inner(x))
        return self.out(F.adaptive_avg_pool2d(x, 2).flatten(1))


def save(net: IdentityNet, folder: Path | str) -> None:
    with atomic_folder(folder) as aside:
        save_file({name: value.half().contiguous() for name, value in net.state_dict().items()}, aside / WEIGHTS)
        write_json(aside / SHAPE, net.shape)


def load(folder: Path | str, latents: tuple[int, ...]) -> IdentityNet:
    """The frozen network in `folder`, checked to read latents of the shape (C, h, w) that are trained on."""
    try:
        shape = json.loads((Path(folder) / SHAPE).read_text())
        net = IdentityNet(**shape)
        net.load_state_dict({name: value.float() for name, value in load_file(Path(folder) / WEIGHTS).items()})
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"finetune.training.identity_model = {str(folder)!r} cannot be read ({one_line(error)}): name a "
            "folder that the foundation's recipe wrote, or null to train without"
        ) from None
    if latents != (shape["channels"], shape["side"], shape["side"]):
        raise UserError(
            f"finetune.training.identity_model = {str(folder)!r} reads latents of {shape['channels']} x "
            f"{shape['side']} x {shape['side']}, this base makes {' x '.join(map(str, latents))}: "
            "name one that fits, or null"
        )
    return net.requires_grad_(False).eval()


def clean(scheduler: Any, noised: torch.Tensor, prediction: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The noiseless latents that a prediction stands for: x_0 from x_t and v, or from x_t and the noise."""
    share = scheduler.alphas_cumprod.to(noised.device)[t][:, None, None, None]
    if scheduler.config.prediction_type == "v_prediction":
        return share.sqrt() * noised - (1 - share).sqrt() * prediction
    return (noised - (1 - share).sqrt() * prediction) / share.sqrt()


def loss(net: IdentityNet, drawn: torch.Tensor, wanted: torch.Tensor, per_row: torch.Tensor) -> torch.Tensor:
    """Mean over B of per_row · (1 − cosine of the identities of drawn and wanted latents (B, C, h, w))."""
    with torch.no_grad():
        right = net(wanted.float())
    return ((1 - F.cosine_similarity(net(drawn.float()), right)) * per_row).mean()
