"""Train the attribute probes, so that they read generated pictures too.

They see renders and what the autoencoder makes of them, moved about, mirrored and blurred.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from foundation.autoencoder import pixels
from foundation.language import targets
from foundation.renders import Renders
from foundation.train import Plan, fit
from iy.evaluate.probes import READS, ProbeNet, Probes, mirror

RATE = 2e-3
TURN, ZOOM, SHIFT = math.radians(4), 0.06, 0.05  # largest change of a picture; the shift in half pictures


def train(renders: Renders, decoded: Callable[[], np.ndarray], plan: Plan, seed: int = 5) -> ProbeNet:
    """`decoded()` (N, 64, 64, 3): the renders after the autoencoder. Half of a batch comes from each."""
    torch.manual_seed(seed)
    net, rng, right = (
        ProbeNet().to(memory_format=torch.channels_last),
        np.random.default_rng(seed),
        targets(renders.attributes, list(READS)),
    )
    mirrored = {name: torch.tensor(mirror(name)) for name in READS}

    def loss(step: int) -> torch.Tensor:
        pick = rng.integers(len(renders.images), size=64 * plan.times)
        half = len(pick) // 2
        x = moved(pixels(np.concatenate([renders.images[pick[:half]], decoded()[pick[half:]]])).to(plan.device), rng)
        x = x * rng.uniform(0.85, 1.15) + rng.uniform(0, 0.08) * torch.randn_like(x)
        if step % 4 == 0:
            x = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
        truth = {name: value[torch.from_numpy(pick)] for name, value in right.items()}
        if rng.random() < 0.5:
            x, truth = x.flip(3), {name: mirrored[name][value] for name, value in truth.items()}
        logits = net(x)
        return sum(F.cross_entropy(logits[name], truth[name].to(x.device), label_smoothing=0.05) for name in READS)

    return fit(plan, net, loss, decay=0.995)


def moved(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Pictures (B, C, h, w), each turned, zoomed and shifted a little."""
    turn, zoom = rng.uniform(-TURN, TURN, len(x)), 1 + rng.uniform(-ZOOM, ZOOM, len(x))
    shift = rng.uniform(-SHIFT, SHIFT, (len(x), 2))
    grid = np.stack(
        [zoom * np.cos(turn), -zoom * np.sin(turn), shift[:, 0], zoom * np.sin(turn), zoom * np.cos(turn), shift[:, 1]],
        1,
    ).reshape(-1, 2, 3)
    places = F.affine_grid(torch.from_numpy(grid).float().to(x.device), list(x.shape), align_corners=False)
    return F.grid_sample(x, places, padding_mode="border", align_corners=False)


def accuracy(net: ProbeNet, renders: Renders) -> dict[str, float]:
    seen = Probes(net, {}).read(list(renders.images))
    return {
        name: float(np.mean([a == b[name] for a, b in zip(seen[name], renders.attributes, strict=True)]))
        for name in READS
    }
