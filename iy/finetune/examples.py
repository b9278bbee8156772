"""Training examples in memory, encoded once: latents, text states, reference crops. Batches follow from (seed, step).

N examples, M reference crops, B rows of a batch; (C, h, w) one image's latents; S the vision tower's image size.
"""

from dataclasses import dataclass

import numpy as np
import torch

from iy.model.attention import Tokens


@dataclass(slots=True)
class Texts:
    """Hidden states of unequal lengths, packed. `rows[name]` holds one (L, D) tensor per distinct caption."""

    rows: dict[str, list[torch.Tensor]]

    def batch(self, chosen: list[int]) -> Tokens:
        """Hidden states (B, L, D), padded with zeros to the longest, and mask (B, L) of every branch."""
        tokens = {}
        for name, states in self.rows.items():
            lengths = torch.tensor([len(states[i]) for i in chosen])
            hidden = torch.nn.utils.rnn.pad_sequence([states[i] for i in chosen], batch_first=True)
            tokens[name] = hidden, torch.arange(hidden.shape[1])[None] < lengths[:, None]
        return tokens


@dataclass(slots=True)
class PaddedTexts:
    """The same on the device that trains, for hundreds of captions a step: states[name] (N, L, D) padded with zeros to
    the longest, lengths[name] (N,) on the processor."""

    states: dict[str, torch.Tensor]
    lengths: dict[str, np.ndarray]

    def batch(self, chosen: list[int]) -> Tokens:
        tokens = {}
        for name, states in self.states.items():
            lengths = self.lengths[name][chosen]
            rows = torch.tensor(chosen).to(states.device)
            places = torch.arange(int(lengths.max()), device=states.device)
            mask = places[None] < torch.from_numpy(lengths).to(states.device)[:, None]
            tokens[name] = states[rows, : len(places)] * mask[..., None], mask
        return tokens


@dataclass(slots=True)
class Batch:
    """latents (B, C, h, w) · text per branch · references (B, 1, 3, S, S) in [-1, 1] · weight (B, 1, h, w), mean 1."""

    latents: torch.Tensor
    text: Tokens
    references: torch.Tensor
    weight: torch.Tensor

    def __len__(self) -> int:
        return len(self.latents)

    def to(self, device: torch.device, dtype: torch.dtype) -> "Batch":
        text = {name: (hidden.to(device, dtype), mask.to(device)) for name, (hidden, mask) in self.text.items()}
        return Batch(self.latents.to(device, dtype), text, self.references.to(device, dtype), self.weight.to(device))


@dataclass(slots=True)
class Examples:
    """N (reference, caption, target) triples. `empty` is the text of the empty caption, for dropped prompts.

    latents (N, C, h, w); caption (N,) row of `texts`; crops uint8 (M, 3, S, S); reference (N,) row of `crops`;
    others: per example the rows of `crops` that show the same person elsewhere; box float32 (N, 4): the face in latent
    cells x0, y0, x1, y1, NaN where it is not known.
    """

    latents: torch.Tensor
    texts: Texts | PaddedTexts
    caption: np.ndarray
    empty: int
    crops: torch.Tensor
    reference: np.ndarray
    others: list[np.ndarray]
    box: np.ndarray

    def __len__(self) -> int:
        return len(self.latents)

    def batch(self, chosen: np.ndarray, references: np.ndarray, face_weight: float) -> Batch:
        """The examples `chosen` (B,), each conditioned on the crop in `references` (B,)."""
        crops = self.crops[torch.from_numpy(references).to(self.crops.device)].float() / 127.5 - 1
        weights = face_maps(self.box[chosen], self.latents.shape[-2:], face_weight)
        return Batch(
            self.latents[torch.from_numpy(chosen).to(self.latents.device)],
            self.texts.batch(self.caption[chosen].tolist()),
            crops[:, None],
            weights,
        )

    def no_text(self) -> Tokens:
        """States (1, L, D) and mask of the empty caption."""
        return self.texts.batch([self.empty])


def face_maps(boxes: np.ndarray, size: tuple[int, int], weight: float) -> torch.Tensor:
    """(B, 1, h, w) loss weights with mean 1: `weight` times as much inside the face boxes (B, 4) as outside."""
    corners = torch.from_numpy(np.nan_to_num(boxes.astype(np.float32), nan=0.0)).clamp(min=0)
    (left, top), (right, bottom) = corners[:, :2].floor().T, corners[:, 2:].ceil().T
    y, x = (torch.arange(count)[None] for count in size)
    down = (y >= top[:, None]) & (y < bottom[:, None])
    across = (x >= left[:, None]) & (x < right[:, None])
    weights = torch.where(down[:, :, None] & across[:, None], weight, 1.0)[:, None]
    return weights / weights.mean((1, 2, 3), keepdim=True)


def random(*seeds: int) -> np.random.Generator:
    """The generator of one purpose: the same seeds, the same numbers, whatever was drawn before."""
    return np.random.default_rng(list(seeds))


def rows_at(seed: int, position: int, count: int, total: int) -> np.ndarray:
    """Rows number `position` to `position + count` of an endless pass over `total` examples, reshuffled every epoch."""
    places = np.arange(position, position + count)
    orders = {epoch: random(seed, 1, int(epoch)).permutation(total) for epoch in np.unique(places // total)}
    return np.array([orders[place // total][place % total] for place in places])


def choose_references(examples: Examples, chosen: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """The reference crop of each example: with probability `share` another photo of the person, where there is one."""
    other = rng.random(len(chosen)) < share
    picks = rng.random(len(chosen))
    rows = [
        examples.others[i][int(pick * len(examples.others[i]))]
        if swap and len(examples.others[i])
        else examples.reference[i]
        for i, swap, pick in zip(chosen, other, picks, strict=True)
    ]
    return np.array(rows)
