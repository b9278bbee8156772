"""Two people in one picture: neighbours photographed alike, side by side, each with a reference for their half.

A U-Net that has only seen one face in the middle of a square draws two in a wide picture, but one of them dissolves.
"""

from collections.abc import Callable

import numpy as np
import torch
from diffusers import DDPMScheduler

from foundation.lesson import EMPTY, REFERENCE, SWAPPABLE, SWAPPED, Lesson, picture_error
from foundation.precision import mixed
from iy.finetune.identity import clean
from iy.model import Personaliser
from iy.model.conditioning import Vision

EVERY = 5  # one step of so many is of pairs


def loss(
    model: Personaliser,
    lesson: Lesson,
    weights: torch.Tensor,
    schedule: DDPMScheduler,
    encode: Callable,
    rng: np.random.Generator,
    sources: tuple[torch.Generator, torch.Generator],
    batch: int,
) -> torch.Tensor:
    """The error of v, of `weights` (N, 1, 16, 16), over `batch` pairs.

    Part of the noisy pictures show the two in each other's place. `sources`: of timesteps, and of noise on the model's
    device.
    """
    first = rng.integers(len(lesson.latents), size=batch)
    pick = np.stack([first, lesson.twins[first]], 1)
    references, known = seen_elsewhere(lesson, pick, rng)
    words = ["" if rng.random() < EMPTY else lesson.texts[i][0] for i in first]
    t = torch.randint(0, 1000, (batch,), generator=sources[0])
    swapped = known.all(1) & (t >= SWAPPABLE).numpy() & (rng.random(batch) < SWAPPED)
    wanted, shown = (beside(lesson.latents, rows) for rows in (pick, np.where(swapped[:, None], pick[:, ::-1], pick)))
    device = model.device
    noise, t = torch.randn(shown.shape, generator=sources[1], device=device), t.to(device)
    noisy = schedule.add_noise(shown, noise, t).contiguous(memory_format=torch.channels_last)
    with mixed(device):
        vision = people(model, lesson, references, torch.from_numpy(known).to(device), wanted.shape[2:])
        v = model.denoise(noisy, t, model.context({model.own: encode(words)}, vision)).float()
        predicted = clean(schedule, noisy, v, t)
    share = schedule.alphas_cumprod.to(device)[t]
    return (
        picture_error(predicted, wanted, share, torch.from_numpy(swapped).to(device)) * beside(weights, pick)
    ).mean()


def seen_elsewhere(lesson: Lesson, pick: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The row of another photo of each person in `pick` (B, 2), and whether it is shown: both or none."""
    rows = [[rng.choice(lesson.others[i]) if len(lesson.others[i]) else -1 for i in pair] for pair in pick]
    references = np.array(rows)
    return references, (references >= 0) & (rng.random(len(pick)) < REFERENCE)[:, None]


def beside(pictures: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
    """Pictures (B, C, h, 2 w) of those (N, C, h, w) in `rows` (B, 2), left and right."""
    left, right = torch.from_numpy(np.ascontiguousarray(rows.T)).to(pictures.device)
    return torch.cat([pictures[left], pictures[right]], 3)


def people(
    model: Personaliser, lesson: Lesson, references: np.ndarray, known: torch.Tensor, size: torch.Size
) -> Vision:
    """What the references (B, 2) of those `known` (B, 2) say, each for their half of a picture of `size` (h, w)."""
    rows = torch.from_numpy(references).flatten().to(known.device)
    seen = [part[rows].float() for part in lesson.seen]
    tokens = model.vision.project(*seen)
    mask = known.flatten()[:, None].expand(tokens.shape[:2])
    regions = torch.zeros(len(known), 2, *size, dtype=torch.bool, device=known.device)
    half = size[1] // 2
    regions[:, 0, :, :half] = regions[:, 1, :, half:] = True
    return Vision(tokens.unflatten(0, (-1, 2)).flatten(1, 2), mask.reshape(len(known), -1), None, regions)
