"""What the U-Net learns from: pictures, captions and the references that come with them; and the error of a picture."""

from typing import NamedTuple

import numpy as np
import torch

from iy.finetune.examples import face_map

FACE = 6.0  # weight of the latent cells that the face is in
SWAPPED, SWAPPABLE = 0.6, 150  # share of the noisy pictures that show somebody else, from this timestep
REFERENCE = 0.85  # share of the pictures that come with one
SILENT = 0.75  # share of those whose caption is silent on who it is
EMPTY = 0.08  # share without a caption


class Lesson(NamedTuple):
    """What the U-Net learns from: N pictures, M photos of the same people to be seen as references.

    latents (N, 4, 16, 16) scaled; images uint8 (N, 3, 64, 64); twins (N,): the row that shows somebody else,
    photographed alike; boxes (N, 4) and landmarks (N, 5, 2) of the faces in pixels, NaN without one; texts[i] several
    captions of picture i, the first one silent about the person; attributes, one dict each; who (N,): the person, as
    the recogniser counts them; others[i]: rows of `seen` that show the person elsewhere; seen: the vision tower's
    global (M, D) and patch embeddings (M, T, D) of the references.
    """

    latents: torch.Tensor
    images: torch.Tensor
    twins: np.ndarray
    boxes: np.ndarray
    landmarks: np.ndarray
    texts: list[list[str]]
    attributes: list[dict[str, str]]
    who: np.ndarray
    others: list[np.ndarray]
    seen: tuple[torch.Tensor, torch.Tensor]

    def to(self, device: torch.device) -> "Lesson":
        """With what is large on `device`."""
        seen = tuple(part.to(device) for part in self.seen)
        return self._replace(latents=self.latents.to(device), images=self.images.to(device), seen=seen)

    def weights(self) -> torch.Tensor:
        """Of every latent cell (N, 1, 16, 16): the face counts `FACE` times."""
        cell, size = self.images.shape[-1] / self.latents.shape[-1], self.latents.shape[2:]
        return torch.stack([face_map(box / cell, size, FACE) for box in self.boxes]).to(self.latents.device)


def choose(lesson: Lesson, pick: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[str], np.ndarray]:
    """For each picture (B,): whether it comes with a reference, its caption, and the row of the reference."""
    known, words, references = rng.random(len(pick)) < REFERENCE, [], []
    for i, has in zip(pick, known, strict=True):
        texts, empty, silent = lesson.texts[i], rng.random() < EMPTY, rng.random() < SILENT
        words.append("" if empty else texts[0] if has and silent else texts[rng.integers(len(texts))])
        references.append(rng.choice(lesson.others[i]) if len(lesson.others[i]) else -1)
    references = np.array(references)
    return known & (references >= 0), words, references


def picture_error(
    predicted: torch.Tensor, wanted: torch.Tensor, share: torch.Tensor, swapped: torch.Tensor
) -> torch.Tensor:
    """The squared error (B, 4, h, w) of v, which is the picture's over 1 - share.

    Where somebody else was `swapped` in (B,) it is the error of the picture itself: no noise explains that difference.
    share (B,): of the picture in what was noisy.
    """
    scale = torch.where(swapped, 1.0, 1 / (1 - share))
    return (predicted - wanted).square() * scale[:, None, None, None]
