"""What examples are read from when they lie on disk: a few numbers in memory for each, the rest row by row."""

from collections.abc import Sequence

import numpy as np
import torch

from iy.finetune.examples import padded
from iy.finetune.store import Store
from iy.model.attention import Tokens


class StoredTensors:
    """Tensor `name` of row `numbers[i]` of a store, for each i; `one`: the shape of one of them."""

    def __init__(self, store: Store, name: str, numbers: np.ndarray, one: Sequence[int]):
        self.store, self.name, self.numbers = store, name, numbers
        self.shape = (len(numbers), *one)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
        """(B, …): what is kept in half precision is given in full."""
        found = torch.stack([self.store.read(int(self.numbers[row]))[self.name] for row in rows.tolist()])
        return found.float() if found.is_floating_point() else found


class StoredTexts:
    """Captions by their number in a store."""

    def __init__(self, store: Store):
        self.store = store

    def batch(self, chosen: list[int]) -> Tokens:
        """See `examples.Captions`."""
        return padded([self.store.read(number) for number in chosen])


class Others:
    """Per example the photos of the same person but its reference; none where the target is no photo.

    person (M,): a number for each photo's person; reference (N,): a photo for each example.
    """

    def __init__(self, person: np.ndarray, reference: np.ndarray, photographed: bool):
        self.reference, self.photographed = reference, photographed
        self.photos = np.argsort(person, kind="stable")
        self.sorted, self.person = person[self.photos], person

    def __len__(self) -> int:
        return len(self.reference)

    def __getitem__(self, i: int) -> np.ndarray:
        if not self.photographed:
            return np.empty(0, int)
        own = self.reference[i]
        start, stop = (np.searchsorted(self.sorted, self.person[own], side) for side in ("left", "right"))
        same = self.photos[start:stop]
        return same[same != own]
