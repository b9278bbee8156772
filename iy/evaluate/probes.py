"""Attribute probes: small networks that read expression, pose, backdrop, clothing and lettering off a picture.

They judge prompt alignment in the studio. Their own accuracy on held-out renders is stored with them and reported.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from iy import lexicon
from iy.errors import UserError
from iy.storage import atomic_folder, write_json

READS = ("expression", "pose", "backdrop", "garment", "garment_colour")  # what prompt alignment counts
ANSWERS = {name: list(lexicon.LEXICON[name]) for name in (*READS, "gaze", "light")} | {"word": ["", *lexicon.WORDS]}
WIDTHS = (24, 32, 64, 96, 128)  # of the blocks, each of which halves the side; the last ones down to 4 pixels
SHIFTS = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))  # pixels


def mirror(name: str) -> list[int]:
    """What each value of an attribute becomes in the mirror: "left" and "right" change places. Mirrored words cannot be
    read, and are no answer (-1)."""
    values = ANSWERS[name]
    if name == "word":
        return [0, *[-1] * (len(values) - 1)]
    other = {"left": "right", "right": "left"}
    return [values.index("-".join(other.get(word, word) for word in value.split("-"))) for value in values]


def views(x: torch.Tensor) -> Iterator[tuple[torch.Tensor, bool]]:
    """Pictures (B, 3, h, w) shifted a pixel each way, and whether mirrored."""
    wide, (height, width) = F.pad(x, (1, 1, 1, 1), mode="replicate"), x.shape[2:]
    for across, down in SHIFTS:
        shifted = wide[:, :, 1 + down : 1 + down + height, 1 + across : 1 + across + width]
        yield shifted, False
        yield shifted.flip(3), True


def block(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, out, 3, 2, 1),
        nn.BatchNorm2d(out),
        nn.GELU(),
        nn.Conv2d(out, out, 3, 1, 1),
        nn.BatchNorm2d(out),
        nn.GELU(),
    )


class ProbeNet(nn.Module):
    """Pixels (B, 3, side, side) in [-1, 1] -> name of `ANSWERS` -> logits (B, answers)."""

    def __init__(self, side: int, reads: Iterable[str] = tuple(ANSWERS)):
        super().__init__()
        self.side, self.reads = side, tuple(reads)
        widths = WIDTHS[-(side // 4).bit_length() + 1 :]
        blocks = [block(before, after) for before, after in zip((3, *widths), widths, strict=False)]
        self.trunk = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(widths[-1] * 16, 128), nn.GELU())
        self.heads = nn.ModuleDict({name: nn.Linear(128, len(ANSWERS[name])) for name in self.reads})

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        seen = self.trunk(x)
        return {name: head(seen) for name, head in self.heads.items()}


class Probes:
    """`accuracy`: share right on held-out renders, by attribute.

    A picture is read in ten views and the answers averaged: that makes a fifth fewer mistakes about expressions.
    """

    def __init__(self, net: ProbeNet, accuracy: dict[str, float]):
        self.net, self.accuracy = net.eval(), accuracy

    @torch.no_grad()
    def read(self, images: list[np.ndarray]) -> dict[str, list[str]]:
        """uint8 RGB (H, W, 3) each -> name -> the value seen in each image."""
        if not images:
            return {name: [] for name in self.net.reads}
        x = torch.from_numpy(np.stack([fit(image, self.net.side) for image in images])).permute(0, 3, 1, 2).float()
        device = next(self.net.parameters()).device
        sure = [self.sure(part.to(device)) for part in (x / 127.5 - 1).split(64)]
        return {
            name: [ANSWERS[name][i] for part in sure for i in part[name].argmax(1).tolist()] for name in self.net.reads
        }

    def sure(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Probability of every value (B, values), summed over the views; mirrored words are not read."""
        total: dict[str, torch.Tensor] = {}
        for view, mirrored in views(x):
            for name, logits in self.net(view).items():
                if mirrored and name == "word":
                    continue
                seen = logits.softmax(1)[:, mirror(name)] if mirrored else logits.softmax(1)
                total[name] = total[name] + seen if name in total else seen
        return total


def fit(image: np.ndarray, side: int) -> np.ndarray:
    from PIL import Image

    if image.shape[:2] == (side, side):
        return image
    way = Image.Resampling.BOX if image.shape[0] > side else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(image).resize((side, side), way))


def save_probes(net: ProbeNet, accuracy: dict[str, float], folder: Path | str) -> None:
    with atomic_folder(folder) as aside:
        save_file(
            {
                name: (value.half() if value.is_floating_point() else value).contiguous()
                for name, value in net.state_dict().items()
            },
            aside / "probes.safetensors",
        )
        right = {name: round(value, 4) for name, value in accuracy.items()}
        write_json(aside / "probes.json", {"accuracy": right, "reads": net.reads, "side": net.side})


def load_probes(folder: Path | str) -> Probes:
    try:
        said = json.loads((Path(folder) / "probes.json").read_text())
        state = load_file(Path(folder) / "probes.safetensors")
    except OSError as error:
        raise UserError(
            f"evaluate.probes = {str(folder)!r} cannot be read ({error.strerror or error}): name another, or null"
        ) from None
    net = ProbeNet(said["side"], said["reads"])
    net.load_state_dict({name: value.float() if value.is_floating_point() else value for name, value in state.items()})
    return Probes(net, said["accuracy"])
