"""The vision tower learns to see who it is: from a masked crop to the very numbers that the studio made the person of.

CLIP's contrast and the recogniser's directions left it with the colours: of the made-up people's numbers it knew skin
(R² 0.9) and hair (0.5), and next to nothing of brows, eyes, nose and chin (below 0.15), which recognisers go by. A
U-Net can draw no more of a person than its tokens hold.
"""

from collections.abc import Callable

import numpy as np
import torch
import transformers
from torch import nn
from torch.nn import functional as F

from foundation.autoencoder import pixels
from foundation.language import contrast
from foundation.renders import Faces, Renders
from foundation.train import Plan, fit
from iy.studio.people import Person, sample_person

RATE = 3e-3
CROPS, PICTURES = 96, 24  # of a step: references, and whole pictures with their captions
MATCH = 0.2  # weight of CLIP's contrast: what it had learnt of pictures and words is to stay
NUMBERS = (
    *("tone", "blush", "freckles", "wrinkles", "hairline", "volume", "parting"),
    *("brow_height", "brow_thickness", "brow_arch", "brow_slant", "brow_length"),
)
COLOURS = ("skin", "lips", "hair_rgb", "brow_rgb", "iris")


def numbers(person: Person) -> list[float]:
    """What the person is made of, as far as it is numbers."""
    shape = [value for part in (person.phenotype, person.local) for _, value in sorted(part.items())]
    colours = [channel for name in COLOURS for channel in getattr(person, name)]
    return [*shape, *(getattr(person, name) for name in NUMBERS), *colours]


def traits(seeds: np.ndarray) -> np.ndarray:
    """The people's numbers (P, D), each at mean 0 and deviation 1 over all of them; constant ones are left out."""
    made = np.array([numbers(sample_person(int(seed))) for seed in seeds], np.float32)
    made = made[:, made.std(0) > 1e-4]
    return (made - made.mean(0)) / made.std(0)


class Sight(nn.Module):
    """The tower, and what reads it.

    Traits (B, D) off its global and its mean patch embedding, and the recogniser's direction (B, 128).
    """

    def __init__(self, tower: transformers.CLIPVisionModelWithProjection, count: int):
        super().__init__()
        whole, patch = tower.config.projection_dim, tower.config.hidden_size
        self.tower = tower.train()
        self.whole, self.patch = nn.Linear(whole, count), nn.Linear(patch, count)
        self.who = nn.Linear(whole, 128, bias=False)
        self.temperature = nn.Parameter(torch.tensor(2.6))

    def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        seen = self.tower(pixel_values=crops)
        patches = self.patch(seen.last_hidden_state[:, 1:].mean(1))
        return self.whole(seen.image_embeds), patches, F.normalize(self.who(seen.image_embeds), dim=1)


def train(
    tower: transformers.CLIPVisionModelWithProjection,
    renders: Renders,
    faces: Faces,
    directions: np.ndarray,
    words: Callable[[np.ndarray, np.random.Generator], torch.Tensor],
    plan: Plan,
    seed: int = 12,
) -> transformers.CLIPVisionModelWithProjection:
    """Train the tower to see persons and traits.

    `directions` (P, 128): where the filtering recogniser sees each person. `words(rows, rng)`: a caption's embedding
    (B, D) of each of those renders, by the text tower, which stays as it is.
    """
    torch.manual_seed(seed)
    rng, people = np.random.default_rng(seed), np.unique(renders.person)
    who = np.searchsorted(people, renders.person)
    known, where = torch.from_numpy(traits(people)), torch.from_numpy(directions).float()
    found = np.flatnonzero(np.isfinite(faces.box[:, 0]))
    net = Sight(tower, known.shape[1])

    def loss(step: int) -> torch.Tensor:
        pick = rng.choice(found, CROPS * plan.times)
        rows = rng.integers(len(renders.images), size=PICTURES * plan.times)
        whole, patches, pointed = net(moved(pixels(faces.crops[pick]), rng).to(plan.device))
        right = known[who[pick]].to(plan.device)
        told = F.mse_loss(whole, right) + 0.5 * F.mse_loss(patches, right)
        near = (pointed * where[who[pick]].to(plan.device)).sum(1).mean()
        pictures = net.tower(pixel_values=pixels(renders.images[rows]).to(plan.device)).image_embeds
        match = F.normalize(pictures, dim=1) @ F.normalize(words(rows, rng), dim=1).T
        return told + 1 - near + MATCH * contrast(net.temperature.exp().clamp(max=100) * match)

    return fit(plan, net, loss, decay=0.99, weight_decay=0.05, muon=True).tower


def moved(crops: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Crops (B, 3, h, w), half of them mirrored, all a little scaled, shifted and noised."""
    count = len(crops)
    scale, mirror = rng.uniform(0.92, 1.08, count), np.where(rng.random(count) < 0.5, -1, 1)
    turn = np.zeros((count, 2, 3), np.float32)
    turn[:, 0, 0], turn[:, 1, 1], turn[:, :, 2] = scale * mirror, scale, rng.uniform(-0.06, 0.06, (count, 2))
    grid = F.affine_grid(torch.from_numpy(turn), list(crops.shape), align_corners=False)
    seen = F.grid_sample(crops, grid, padding_mode="border", align_corners=False)
    return seen + 0.02 * torch.randn_like(seen)
