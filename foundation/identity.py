"""A small recogniser that reads latents, for the stages' identity loss (our choice): who is it, from 8 x 16 x 16?

It learns from renders to point where the filtering recogniser (dlib's) points for the same person, and to tell the
people of a batch apart. So a training step can ask of its prediction "is this still the person?" without decoding it.
The foundation never meets it, and the evaluation's recogniser has no part in it.
"""

import numpy as np
import torch
from torch.nn import functional as F

from foundation.renders import Renders
from foundation.train import Batch, Plan, fit
from iy.finetune.identity import IdentityNet

RATE = 1e-3
NOISE = 0.35  # the largest deviation of what predictions carry


def train(renders: Renders, latents: torch.Tensor, plan: Plan, seed: int = 8) -> IdentityNet:
    """latents (V, 8, 16, 16) on the device, views of the renders in order. Half of a batch shows the persons of the
    other half in another of their renders, or in another view of a single one."""
    torch.manual_seed(seed)
    net, rng = IdentityNet(*latents.shape[1:3]), np.random.default_rng(seed)
    people, who = np.unique(renders.person, return_inverse=True)
    where = torch.from_numpy(directions(renders, who)).to(plan.device)
    rows = [np.flatnonzero(who == k) for k in range(len(people))]
    usable = np.flatnonzero([renders.found[one].any() for one in rows])
    size, count = len(renders.images), len(latents) // len(renders.images)

    def draw(step: int) -> Batch:
        chosen = rng.permutation(usable)[: plan.batch // 2]
        pick = [rng.choice(rows[k]) + size * rng.integers(count) for _ in range(2) for k in chosen]
        return {"pick": torch.tensor(pick), "who": torch.from_numpy(np.tile(chosen, 2))}

    def loss(batch: Batch) -> torch.Tensor:
        x = latents[batch["pick"]].float()
        x = x + NOISE * torch.rand(len(x), 1, 1, 1, device=x.device) * torch.randn_like(x)
        seen = F.normalize(net(x), dim=1)
        a, b = seen.chunk(2)
        pointed = 1 - (seen * where[batch["who"]]).sum(1).mean()
        match, right = 12.0 * a @ b.T, torch.arange(len(a), device=a.device)
        return pointed + 0.1 * (F.cross_entropy(match, right) + F.cross_entropy(match.T, right))

    return fit(plan, net, draw, loss, decay=0.99)


def directions(renders: Renders, who: np.ndarray) -> np.ndarray:
    """In which direction each person (P, 128) differs from everybody for the filtering recogniser, at length 1."""
    weight = renders.found.astype(np.float32)
    total = np.stack([np.bincount(who, weight * column) for column in renders.embedding.T], 1)
    away = total / np.maximum(np.bincount(who, weight), 1e-6)[:, None]
    away = away - away.mean(0)
    return (away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-6)).astype(np.float32)


@torch.no_grad()
def rank1(net: IdentityNet, latents: torch.Tensor, shots: int) -> float:
    """Share of the first renders whose nearest second one shows the same person, among len(latents) / shots."""
    seen = F.normalize(net(latents.to(net.out.weight.device)), dim=1).cpu().unflatten(0, (-1, shots))
    return float((seen[:, 0] @ seen[:, 1].T).argmax(1).eq(torch.arange(len(seen))).float().mean())
