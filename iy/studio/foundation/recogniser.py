"""Who is it? The filtering recogniser (dlib's) asked of decoded latents, for the U-Net's training.

A small network of our own that had learnt to tell the renders' people apart was soon pleased by faces in which neither
recogniser saw them: 0.47 of 12 strangers told apart by it, 0.28 by dlib's, 0.25 by the judge. One that has seen
millions of faces looks at what makes them. The judge of the evaluation has no part in it.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from iy.faces import weights
from iy.faces.dlibtorch import DlibNet, chips
from iy.studio.foundation.renders import Faces, Renders

SHARPNESS = 25.0  # of the softmax over all people: the least surprise at renders seen through the autoencoder


def means(renders: Renders, faces: Faces) -> np.ndarray:
    """Where the recogniser sees each person (P, 128): the mean over their photos with a face."""
    seen = faces.embedding.reshape(-1, renders.shots, faces.embedding.shape[1])
    weight = np.isfinite(faces.box[:, 0]).reshape(-1, renders.shots, 1) + 1e-6
    return (seen * weight).sum(1) / weight.sum(1)


def people(renders: Renders, faces: Faces) -> np.ndarray:
    """In which direction each person (P, 128) differs from everybody, at length 1."""
    away = means(renders, faces)
    away = away - away.mean(0)
    return away / np.linalg.norm(away, axis=1, keepdims=True)


class Recogniser(nn.Module):
    """Knows people by where dlib's network sees them, `means` (P, 128)."""

    def __init__(self, means: np.ndarray):
        super().__init__()
        self.net = DlibNet(weights.path("dlib")).to(memory_format=torch.channels_last)
        where = torch.from_numpy(means).float()
        self.register_buffer("middle", where.mean(0))
        self.register_buffer("people", F.normalize(where - self.middle, dim=1))

    def forward(self, faces: torch.Tensor, landmarks: np.ndarray) -> torch.Tensor:
        """Cosine (B, P) of what pictures (B, 3, h, w) in [-1, 1] show to every person, as they differ from everybody.

        landmarks (B, 5, 2): where in the pictures they are to be, in pixels.
        """
        seen = self.net(chips(faces, landmarks).contiguous(memory_format=torch.channels_last)).float()
        return F.normalize(seen - self.middle, dim=1) @ self.people.T

    def surprise(self, faces: torch.Tensor, landmarks: np.ndarray, who: np.ndarray) -> torch.Tensor:
        """How surprising (B,), in nats, that they show the persons `who` (B,).

        The angle to one's own person alone says little: all faces are alike, and half of it is had by drawing somebody
        of that age and skin. What counts is being told from others.
        """
        right = torch.from_numpy(who).to(faces.device)
        return F.cross_entropy(SHARPNESS * self(faces, landmarks), right, reduction="none")
