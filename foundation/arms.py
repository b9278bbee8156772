"""The arms of the long stage 1: with which identity loss (our choice; the paper has none) it learns, if any.

`plain`: the diffusion loss alone. `latents`: the small network that reads latents. `pixels`: what is predicted is
decoded, and dlib's network looks at it: what its blocks make of it (`foundation.perceptual`), and in which direction
the person differs from everybody. dlib's figures of a model that learnt so are not independent; the evaluation's judge
is never asked here.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from foundation import perceptual
from foundation.autoencoder import pixels
from foundation.lesson import Lesson, Shown
from foundation.train import mixed
from iy.faces.dlibtorch import DlibNet

WEIGHTS = {"plain": 0.0, "latents": 0.1, "pixels": 0.3}  # of the identity loss, by arm
SEEN = 0.25  # share of a batch that is decoded and looked at: chips are 150 px, and a large network reads them
KNOWN = 1024  # pictures that "everybody" is the mean of
LOOKS = 64  # pictures looked at together before training


class Pixels:
    """The identity loss on decoded pixels. vae, net: frozen, on the device; lesson: whose people are everybody."""

    def __init__(self, vae: nn.Module, net: DlibNet, lesson: Lesson):
        self.vae, self.net = vae, net.to(lesson.latents.device)
        rows = np.random.default_rng(0).permutation(len(lesson.images))[:KNOWN]
        self.everybody = self.answers(lesson, rows).mean(0)

    @torch.no_grad()
    def answers(self, lesson: Lesson, rows: np.ndarray) -> torch.Tensor:
        """What the network answers to true pictures (N, 128), their faces moved and mirrored as in training."""
        found = []
        for part in np.array_split(rows, -(-len(rows) // LOOKS)):
            ways = perceptual.ways(lesson.landmarks[part], np.random.default_rng(1)).to(lesson.images.device)
            seen = pixels(lesson.images[torch.from_numpy(part).to(lesson.images.device)])
            found.append(self.net.vector(perceptual.maps(self.net, seen, ways)[-1]).float())
        return torch.cat(found)

    def unlike(self, drawn: torch.Tensor, batch: Shown, clear: torch.Tensor) -> torch.Tensor:
        """The mean over the first K rows of latents (B, 8, 16, 16), decoded, weighted by the roots of clear (B,).

        The roots: with ᾱ itself mostly pictures count that their own latents already show.
        """
        seen = len(batch.ways)
        with mixed(drawn.device):
            shown = self.vae.decode(drawn[:seen] / self.vae.config["scaling_factor"]).sample.float()
        ours = perceptual.maps(self.net, shown, batch.ways)
        with torch.no_grad():
            theirs = perceptual.maps(self.net, pixels(batch.pictures), batch.ways)
        who, right = (self.net.vector(maps[-1]).float() - self.everybody for maps in (ours, theirs))
        wrong = perceptual.far(ours, theirs) + 1 - F.cosine_similarity(who, right)
        return (wrong * clear[:seen].sqrt()).mean()
