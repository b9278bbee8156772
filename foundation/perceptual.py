"""How differently a face recogniser sees two pictures on its way: for the autoencoder, and for stage 1's identity loss.

One minus the cosine at every place, the mean over places and blocks (LPIPS, arXiv 1801.03924, without its weights, by a
network that knows faces: dlib's, which the pipeline filters with; the evaluation's own recogniser has no part in it).
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from iy.faces import weights
from iy.faces.align import DLIB_150, similarity_transform
from iy.faces.dlibnet import tensors
from iy.faces.dlibtorch import DlibNet
from iy.storage import atomic_path

BLOCKS = (2, 6, 9, 12, 13)  # whose maps are compared: the last of each width, and the last of all
OFF = 1.4  # pixels that landmarks are moved by at most: what pleases one very chip only is no likeness
CHIP = 150


def ways(landmarks: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """From a chip's pixels back to the picture's, float32 (B, 2, 3), for landmarks (B, 5, 2) in pixels, moved a little;
    half of the chips are mirrored."""
    moved = landmarks + rng.uniform(-OFF, OFF, landmarks.shape)
    there = np.concatenate([similarity_transform(moved, DLIB_150), np.tile([0, 0, 1.0], (len(moved), 1, 1))], 1)
    back = np.linalg.inv(there)[:, :2]
    mirror = np.array([[-1.0, 0, CHIP - 1], [0, 1, 0], [0, 0, 1]])
    turned = rng.random(len(back)) < 0.5
    back[turned] = back[turned] @ mirror
    return torch.from_numpy(back).float()


def chips(pictures: torch.Tensor, ways: torch.Tensor) -> torch.Tensor:
    """Pictures (B, 3, h, w) -> (B, 3, 150, 150)."""
    h, w = pictures.shape[2:]
    y, x = torch.meshgrid(*2 * [torch.arange(CHIP, device=pictures.device)], indexing="ij")
    source = torch.stack([x, y, torch.ones_like(x)], -1).float() @ ways.transpose(1, 2)[:, None]
    size = torch.stack([source.new_full((), w - 1), source.new_full((), h - 1)])
    return F.grid_sample(pictures.float(), 2 * source / size - 1, padding_mode="border", align_corners=True)


def unlike(net: DlibNet, drawn: torch.Tensor, true: torch.Tensor, ways: torch.Tensor) -> torch.Tensor:
    """The mean over pictures (B, 3, h, w) in [-1, 1], in [0, 2]."""
    both = maps(net, torch.cat([drawn, true]), torch.cat([ways, ways]))
    return far([one.chunk(2)[0] for one in both], [one.chunk(2)[1] for one in both]).mean()


def maps(net: DlibNet, pictures: torch.Tensor, ways: torch.Tensor) -> list[torch.Tensor]:
    """What each block makes of pictures (B, 3, h, w) in [-1, 1]."""
    seen = chips(pictures, ways).contiguous(memory_format=torch.channels_last)
    with torch.autocast(seen.device.type, torch.bfloat16, enabled=seen.device.type == "cuda", cache_enabled=False):
        return net.maps(seen)


def far(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> torch.Tensor:
    """(B,): one minus the cosine at every place of two pictures' maps, the mean over places and `BLOCKS`, in [0, 2]."""
    each = [1 - F.cosine_similarity(ours[k].float(), theirs[k].float(), dim=1) for k in BLOCKS]
    return torch.stack([one.mean((1, 2)) for one in each]).mean(0)


def shipped() -> DlibNet:
    """The network as the installed package carries it."""
    return DlibNet(tensors(weights.path("dlib").read_bytes()))


def pack(path: Path) -> None:
    """Half-precision weights of the network, in their order, to `path`: 11 MB for a machine without the package."""
    each = enumerate(tensors(weights.path("dlib").read_bytes()))
    with atomic_path(path) as aside:
        save_file({f"{number:03d}": torch.from_numpy(one.copy()).half() for number, one in each}, aside)


def packed(path: Path) -> DlibNet:
    """The network that `pack` wrote."""
    return DlibNet(one.float().numpy() for _, one in sorted(load_file(path).items()))
