"""Train the attribute probes, so that they read generated pictures too.

They see renders and what the autoencoder makes of them, moved about, mirrored and blurred.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from foundation.autoencoder import pixels, tensor
from foundation.renders import SIDE, Renders
from foundation.train import Batch, Plan, fit, mixed
from iy.evaluate.probes import ANSWERS, ProbeNet, Probes, mirror

RATE = 2e-3
TURN, ZOOM, SHIFT = math.radians(4), 0.06, 0.05  # largest change of a picture; the shift in half pictures
BLURRED = 0.25  # share of the pictures


def answers(renders: Renders) -> dict[str, torch.Tensor]:
    """Class indices (N,) of everything that the probes read."""
    rows = [row | {"word": word} for row, word in zip(renders.attributes, renders.words, strict=True)]
    return {name: torch.tensor([values.index(row[name]) for row in rows]) for name, values in ANSWERS.items()}


def train(renders: Renders, decoded: Callable[[], np.ndarray], plan: Plan, seed: int = 5) -> ProbeNet:
    """`decoded()` (N, 128, 128, 3): the renders after the autoencoder. Half of what is read comes from each."""
    torch.manual_seed(seed)
    net, rng = ProbeNet(SIDE).to(memory_format=torch.channels_last), np.random.default_rng(seed)
    if (plan.folder / f"{plan.name}.safetensors").exists():
        return fit(plan, net, dict, lambda batch: batch["none"])
    images = tensor(np.concatenate([renders.images, decoded()])).to(plan.device)
    right = {name: value.repeat(2).to(plan.device) for name, value in answers(renders).items()}
    turned = {name: torch.tensor(mirror(name), device=plan.device) for name in ANSWERS}

    def draw(step: int) -> Batch:
        count = plan.batch
        return {
            "pick": torch.from_numpy(rng.integers(len(images), size=count)),
            "ways": torch.from_numpy(ways(rng, count)).float(),
            "flip": torch.from_numpy(rng.random(count) < 0.5),
            "blur": torch.from_numpy(rng.random(count) < BLURRED),
            "light": torch.from_numpy(rng.uniform(0.85, 1.15, count)).float(),
        }

    def loss(batch: Batch) -> torch.Tensor:
        x = pixels(images[batch["pick"]])
        x = F.grid_sample(
            x,
            F.affine_grid(batch["ways"], list(x.shape), align_corners=False),
            padding_mode="border",
            align_corners=False,
        )
        x = x * batch["light"][:, None, None, None] + 0.05 * torch.randn_like(x)
        soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
        flip = batch["flip"][:, None, None, None]
        x = torch.where(batch["blur"][:, None, None, None], soft, x)
        x = torch.where(flip, x.flip(3), x).contiguous(memory_format=torch.channels_last)
        with mixed(plan.device):
            logits = net(x)
        return sum(
            F.cross_entropy(
                logits[name].float(),
                torch.where(batch["flip"], turned[name][right[name][batch["pick"]]], right[name][batch["pick"]]),
                ignore_index=-1,
                label_smoothing=0.05,
            )
            for name in ANSWERS
        )

    return fit(plan, net, draw, loss, decay=0.995)


def ways(rng: np.random.Generator, count: int) -> np.ndarray:
    """Matrices (B, 2, 3) that turn, zoom and shift a picture a little."""
    turn, zoom = rng.uniform(-TURN, TURN, count), 1 + rng.uniform(-ZOOM, ZOOM, count)
    shift = rng.uniform(-SHIFT, SHIFT, (count, 2))
    columns = [
        zoom * np.cos(turn),
        -zoom * np.sin(turn),
        shift[:, 0],
        zoom * np.sin(turn),
        zoom * np.cos(turn),
        shift[:, 1],
    ]
    return np.stack(columns, 1).reshape(-1, 2, 3)


def accuracy(net: ProbeNet, renders: Renders) -> dict[str, float]:
    """Share read right on pictures that the probes never saw."""
    seen, right = Probes(net, {}).read(list(renders.images)), answers(renders)
    return {
        name: float(
            np.mean(
                [ANSWERS[name].index(one) == int(other) for one, other in zip(seen[name], right[name], strict=True)]
            )
        )
        for name in ANSWERS
    }
