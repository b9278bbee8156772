"""Batches for the trainer, by their number; some are made ahead of their step, in a thread."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from iy import params
from iy.finetune.examples import Batch, Examples, choose_references, random, rows_at


class Drawn(NamedTuple):
    """A batch, a seed for whatever else draws numbers in its step, and the generator that its step goes on with."""

    batch: Batch
    seed: int
    rng: np.random.Generator


class Loader:
    """Batch `block` follows from (seed, block) alone, whatever was asked for before.

    purpose: keeps its random numbers apart from others of the same seed. rows: which of a batch are wanted. ahead: how
    many are made before they are asked for. pinned: in memory that a GPU copies from by itself.
    """

    def __init__(
        self,
        examples: Examples,
        settings: params.Training,
        seed: int,
        purpose: int,
        *,
        rows: slice,
        ahead: int,
        pinned: bool,
    ):
        self.examples, self.settings, self.seed, self.purpose = examples, settings, seed, purpose
        self.rows, self.ahead, self.pinned = rows, ahead, pinned
        self.thread = ThreadPoolExecutor(1, "batches") if ahead else None
        self.waiting: dict[int, Future[Drawn]] = {}

    def __call__(self, block: int) -> Drawn:
        if self.thread is None:
            return self.make(block)
        wanted = range(block, block + 1 + self.ahead)
        for other in set(self.waiting).difference(wanted):
            self.waiting.pop(other).cancel()
        for one in wanted:
            if one not in self.waiting:
                self.waiting[one] = self.thread.submit(self.make, one)
        return self.waiting.pop(block).result()

    def make(self, block: int) -> Drawn:
        settings, rng = self.settings, random(self.seed, self.purpose, block)
        seed = int(rng.integers(2**62))
        chosen = rows_at(self.seed, block * settings.batch, settings.batch, self.examples.order)
        references = choose_references(self.examples, chosen, settings.reference_other, rng)
        batch = self.examples.batch(chosen[self.rows], references[self.rows], settings.face_weight)
        return Drawn(batch.pinned() if self.pinned else batch, seed, rng)

    def close(self) -> None:
        """End the thread; what it made is forgotten."""
        if self.thread is not None:
            self.thread.shutdown(cancel_futures=True)
            self.waiting.clear()
