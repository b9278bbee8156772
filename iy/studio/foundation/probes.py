"""Train the attribute probes on renders, with noise and blur so that they read generated pictures too."""

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from iy.studio.foundation.autoencoder import pixels
from iy.studio.foundation.language import targets
from iy.studio.foundation.renders import Renders
from iy.studio.foundation.train import fit
from iy.studio.probes import READS, ProbeNet, Probes


def train(renders: Renders, folder: Path, steps: int, seed: int = 5) -> ProbeNet:
    torch.manual_seed(seed)
    net, rng, right = (
        ProbeNet().to(memory_format=torch.channels_last),
        np.random.default_rng(seed),
        targets(renders.attributes, list(READS)),
    )

    def loss(step: int) -> torch.Tensor:
        pick = rng.integers(len(renders.images), size=64)
        x = pixels(renders.images[pick])
        x = torch.roll(x, tuple(int(v) for v in rng.integers(-2, 3, size=2)), (2, 3)) + rng.uniform(
            0, 0.08
        ) * torch.randn_like(x)
        if step % 2:
            x = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
        logits = net(x)
        at = torch.from_numpy(pick)
        return sum(F.cross_entropy(logits[name].float(), right[name][at], label_smoothing=0.05) for name in READS)

    return fit("probes", net, loss, steps, 2e-3, folder, decay=0.99)


def accuracy(net: ProbeNet, renders: Renders) -> dict[str, float]:
    seen = Probes(net, {}).read(list(renders.images))
    return {
        name: float(np.mean([a == b[name] for a, b in zip(seen[name], renders.attributes, strict=True)]))
        for name in READS
    }
