"""A small recogniser that reads latents, for the identity loss: who is it, from (4, 16, 16) numbers.

It learns from the renders to point where the filtering recogniser (dlib's) points for the same person, and to tell the
people of a batch apart. So a training step can ask of its prediction "is this still the person?" without decoding it.
The judge of the evaluation has no part in it.
"""

import numpy as np
import torch
from torch.nn import functional as F

from foundation.language import contrast
from foundation.recogniser import people
from foundation.renders import Faces, Renders
from foundation.train import Plan, fit
from iy.finetune.identity import IdentityNet

RATE = 1e-3


def train(renders: Renders, faces: Faces, latents: torch.Tensor, plan: Plan, seed: int = 8) -> IdentityNet:
    """Half of a batch's pictures are a second photo of the other half; all get the noise that predictions carry."""
    torch.manual_seed(seed)
    net, rng = IdentityNet(*latents.shape[1:3]), np.random.default_rng(seed)
    where, shots = torch.from_numpy(people(renders, faces)).float().to(plan.device), renders.shots

    def loss(step: int) -> torch.Tensor:
        who = rng.permutation(len(where))[: 64 * plan.times]
        first, second = (who * shots + rng.integers(shots, size=len(who)) for _ in range(2))
        x = latents[torch.from_numpy(np.concatenate([first, second]))].to(plan.device)
        x = x + torch.from_numpy(rng.uniform(0, 0.35, (len(x), 1, 1, 1))).float().to(x.device) * torch.randn_like(x)
        seen = F.normalize(net(x), dim=1)
        a, b = seen.chunk(2)
        pointed = 1 - (seen * where[torch.from_numpy(who)].repeat(2, 1)).sum(1).mean()
        return pointed + 0.2 * contrast(12.0 * a @ b.T)

    return fit(plan, net, loss, decay=0.99)


@torch.no_grad()
def rank1(net: IdentityNet, latents: torch.Tensor, shots: int) -> float:
    """Share of the first photos whose nearest second photo shows the same person, among len(latents) / shots."""
    seen = F.normalize(net(latents.to(net.out.weight.device)), dim=1).cpu().unflatten(0, (-1, shots))
    return float((seen[:, 0] @ seen[:, 1].T).argmax(1).eq(torch.arange(len(seen))).float().mean())
