"""Training examples and their order: latents, text states, reference crops. Batches follow from (seed, step).

N examples, M reference crops, B rows of a batch; (C, h, w) one image's latents; S the vision tower's image size. What
they are read from may lie in memory or on disk (`iy.finetune.stored`): it is asked for rows by number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch

from iy.model.attention import Tokens


class Tensors(Protocol):
    """Tensors of equal shape, asked for by number: a tensor itself, or what reads it row by row."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: torch.Tensor, /) -> torch.Tensor: ...

    def __len__(self) -> int: ...


class Captions(Protocol):
    def batch(self, chosen: list[int]) -> Tokens:
        """Hidden states (B, L, D), padded with zeros to the longest, and mask (B, L) of every branch."""
        ...


@dataclass(slots=True)
class Texts:
    """Hidden states of unequal lengths, packed. `rows[name]` holds one (L, D) tensor per distinct caption."""

    rows: dict[str, list[torch.Tensor]]

    def batch(self, chosen: list[int]) -> Tokens:
        return padded([{name: states[i] for name, states in self.rows.items()} for i in chosen])


def padded(rows: Sequence[Mapping[str, torch.Tensor]]) -> Tokens:
    """States (L, D) by branch of each row, as one batch: padded with zeros to the longest, with their masks."""
    tokens = {}
    for name in rows[0]:
        lengths = torch.tensor([len(row[name]) for row in rows])
        hidden = torch.nn.utils.rnn.pad_sequence([row[name] for row in rows], batch_first=True)
        tokens[name] = hidden, torch.arange(hidden.shape[1])[None] < lengths[:, None]
    return tokens


@dataclass(slots=True)
class Batch:
    """latents (B, C, h, w) · text per branch · references (B, 1, 3, S, S) in [-1, 1] · weight (B, 1, h, w), mean 1 ·
    sizes int (B, 6), SDXL's conditions (see `buckets.Cut`), None where they are not known."""

    latents: torch.Tensor
    text: Tokens
    references: torch.Tensor
    weight: torch.Tensor
    sizes: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.latents)

    def to(self, device: torch.device, dtype: torch.dtype) -> "Batch":
        """On the device, floats in `dtype`. From pinned memory the copy goes on while the processor does other work."""

        def moved(x: torch.Tensor, kind: torch.dtype | None = None) -> torch.Tensor:
            return x.to(device, kind or x.dtype, non_blocking=x.is_pinned())

        text = {name: (moved(hidden, dtype), moved(mask)) for name, (hidden, mask) in self.text.items()}
        latents, references = moved(self.latents, dtype), moved(self.references, dtype)
        return Batch(latents, text, references, moved(self.weight), None if self.sizes is None else moved(self.sizes))

    def pinned(self) -> "Batch":
        """In memory that a GPU copies from by itself."""
        text = {name: (hidden.pin_memory(), mask.pin_memory()) for name, (hidden, mask) in self.text.items()}
        parts = [part.pin_memory() for part in (self.latents, self.references, self.weight)]
        return Batch(parts[0], text, parts[1], parts[2], None if self.sizes is None else self.sizes.pin_memory())


@dataclass(slots=True)
class Examples:
    """N (reference, caption, target) triples. `empty` is the text of the empty caption, for dropped prompts.

    latents (N, C, h, w); caption (N,) row of `texts`; crops uint8 (M, 3, S, S); reference (N,) row of `crops`;
    others: per example the rows of `crops` that show the same person elsewhere; box float32 (N, 4): the face in latent
    cells x0, y0, x1, y1, NaN where it is not known; sizes int (N, 6), or None; order: how they follow one another.
    """

    latents: Tensors
    texts: Captions
    caption: np.ndarray
    empty: int
    crops: Tensors
    reference: np.ndarray
    others: Sequence[np.ndarray]
    box: np.ndarray
    sizes: np.ndarray | None = None
    shapes: "Shapes | None" = None

    def __len__(self) -> int:
        return len(self.latents)

    @property
    def order(self) -> "int | Shapes":
        """What `rows_at` goes through: all of them in any order, or the shapes of which a batch has one."""
        return len(self) if self.shapes is None else self.shapes

    def batch(self, chosen: np.ndarray, references: np.ndarray, face_weight: float) -> Batch:
        """The examples `chosen` (B,), of one shape, each conditioned on the crop in `references` (B,)."""
        latents = self.latents[torch.from_numpy(chosen)]
        crops = self.crops[torch.from_numpy(references)].float() / 127.5 - 1
        height, width = latents.shape[-2:]
        weights = torch.stack([face_map(box, (height, width), face_weight) for box in self.box[chosen]])
        text = self.texts.batch(self.caption[chosen].tolist())
        sizes = None if self.sizes is None else torch.from_numpy(self.sizes[chosen])
        return Batch(latents, text, crops[:, None], weights, sizes)

    def no_text(self) -> Tokens:
        """States (1, L, D) and mask of the empty caption."""
        return self.texts.batch([self.empty])


def face_map(box: np.ndarray, size: tuple[int, int], weight: float) -> torch.Tensor:
    """(1, h, w) loss weights with mean 1: `weight` times as much inside the face box as outside."""
    weights = torch.ones(1, *size)
    if np.isfinite(box).all():
        x0, y0 = np.floor(np.maximum(box[:2], 0)).astype(int)
        x1, y1 = np.ceil(np.maximum(box[2:], 0)).astype(int)
        weights[:, y0:y1, x0:x1] = weight
    return weights / weights.mean()


def random(*seeds: int) -> np.random.Generator:
    """The generator of one purpose: the same seeds, the same numbers, whatever was drawn before."""
    return np.random.default_rng(list(seeds))


def rows_at(seed: int, position: int, count: int, order: "int | Shapes") -> np.ndarray:
    """Rows number `position` to `position + count` of an endless pass over all examples, reshuffled every epoch.

    order: how many there are; or their shapes, of which each block has one: `count` must then divide its length, and
    `position` be a multiple of `count`.
    """
    total = order if isinstance(order, int) else order.epoch
    places = np.arange(position, position + count)
    orders = {epoch: shuffled(seed, int(epoch), order) for epoch in np.unique(places // total)}
    return np.array([orders[place // total][place % total] for place in places])


@lru_cache(2)
def shuffled(seed: int, epoch: int, order: "int | Shapes") -> np.ndarray:
    """All rows as they follow one another in an epoch."""
    rng = random(seed, 1, epoch)
    return rng.permutation(order) if isinstance(order, int) else order.shuffled(rng)


class Shapes:
    """Examples whose latents have one of a few shapes: kind (N,) says which. An epoch goes through blocks of `block`
    rows of one shape each; the last of a shape is filled up with others of it."""

    def __init__(self, kind: np.ndarray, block: int):
        self.block = block
        self.members = [np.flatnonzero(kind == one) for one in np.unique(kind)]
        self.epoch = sum(-(-len(rows) // block) * block for rows in self.members)

    def shuffled(self, rng: np.random.Generator) -> np.ndarray:
        several = []
        for rows in self.members:
            filled = np.resize(rng.permutation(rows), (-(-len(rows) // self.block), self.block))
            several.append(filled)
        blocks = np.concatenate(several)
        return blocks[rng.permutation(len(blocks))].ravel()


def choose_references(examples: Examples, chosen: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """The reference crop of each example: with probability `share` another photo of the person, where there is one."""
    other = rng.random(len(chosen)) < share
    picks = rng.random(len(chosen))
    rows = []
    for i, swap, pick in zip(chosen, other, picks, strict=True):
        others = examples.others[i] if swap else ()
        rows.append(others[int(pick * len(others))] if len(others) else examples.reference[i])
    return np.array(rows)
