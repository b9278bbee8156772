"""Who is it? The filtering recogniser (dlib's) asked of decoded latents, for the U-Net's training.

A small network of our own that had learnt to tell the renders' people apart was soon pleased by faces in which neither
recogniser saw them: 0.47 of 12 strangers told apart by it, 0.28 by dlib's, 0.25 by the judge. One that has seen
millions of faces looks at what makes them. Still, its answer alone is soon had by less than the person: on 1800 people
drawings recognised by it went from 0.55 to 0.59 of 12, by the judge not at all. So the prediction is compared with the
true picture too, in what the network sees on its way. The judge of the evaluation has no part in it.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from foundation.renders import Faces, Renders
from iy.faces import weights
from iy.faces.dlibtorch import DlibNet, chips

BLOCKS = (2, 6, 9, 12, 13)  # whose maps are compared: the last of each width, and the last of all
OFF = 0.7  # pixels that landmarks are moved by at most
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

    def maps(self, faces: torch.Tensor, landmarks: np.ndarray) -> list[torch.Tensor]:
        """What the network sees, block by block, in pictures (B, 3, h, w) in [-1, 1].

        landmarks (B, 5, 2): where in the pictures they are to be, in pixels.
        """
        return self.net.maps(chips(faces, landmarks).contiguous(memory_format=torch.channels_last))

    def surprise(self, maps: list[torch.Tensor], who: np.ndarray) -> torch.Tensor:
        """How surprising (B,), in nats, that what was seen are the persons `who` (B,).

        The angle to one's own person alone says little: all faces are alike, and half of it is had by drawing somebody
        of that age and skin. What counts is being told from others, as each differs from everybody.
        """
        away = F.normalize(self.net.vector(maps[-1]).float() - self.middle, dim=1)
        right = torch.from_numpy(who).to(away.device)
        return F.cross_entropy(SHARPNESS * away @ self.people.T, right, reduction="none")

    @staticmethod
    def unlike(maps: list[torch.Tensor], others: list[torch.Tensor]) -> torch.Tensor:
        """How differently two pictures of each row are seen (B,), in [0, 2].

        One minus the cosine at every place, the mean over places and blocks. (LPIPS, arXiv 1801.03924, without its
        weights, by a network that knows faces.)
        """
        pairs = [(maps[k].float(), others[k].float()) for k in BLOCKS]
        return torch.stack([(1 - F.cosine_similarity(a, b, dim=1)).mean((1, 2)) for a, b in pairs]).mean(0)


def from_elsewhere(
    pictures: torch.Tensor, landmarks: np.ndarray, rng: np.random.Generator
) -> tuple[torch.Tensor, np.ndarray]:
    """Pictures (B, C, h, w) and landmarks (B, 5, 2), half of them mirrored, the landmarks up to a pixel off."""
    turned = rng.random(len(pictures)) < 0.5
    width = pictures.shape[3]
    mirrored = landmarks[:, [1, 0, 2, 4, 3]] * [-1, 1] + [width - 1, 0]  # eyes and corners of the mouth change places
    landmarks = np.where(turned[:, None, None], mirrored, landmarks) + rng.uniform(-OFF, OFF, (len(pictures), 5, 2))
    return torch.where(
        torch.from_numpy(turned).to(pictures.device)[:, None, None, None], pictures.flip(3), pictures
    ), landmarks
