"""What curate's torch models share: one sentence for what cannot be opened, batches that fit the GPU's memory."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence

import torch
from safetensors import SafetensorError
from transformers.utils.logging import disable_progress_bar

from iy.errors import UserError, one_line

log = logging.getLogger(__name__)


@contextlib.contextmanager
def opening(key: str, model: str, kind: str) -> Iterator[None]:
    """`key`: the setting that names the model, of `kind` for its remedy."""
    disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"{key} {model} cannot be opened ({one_line(error)}): name a folder or model id of {kind}"
        ) from None


class Batches:
    """Work on at most `size` things at a time; on half as many from when the GPU's memory did not suffice.

    That changes the answers in their last floating-point digits only. `key`: the model's setting, for errors.
    """

    def __init__(self, size: int, key: str) -> None:
        self.size, self.key = size, key

    def __call__(self, work: Callable[[Sequence], Sequence], things: Sequence) -> list:
        """What `work` answers to each thing, in their order."""
        done: list = []
        while len(done) < len(things):
            some = things[len(done) : len(done) + self.size]
            try:
                done += work(some)
                continue
            except torch.OutOfMemoryError:
                if len(some) == 1:
                    raise UserError(
                        f"{self.key}: the GPU's memory does not hold the model and one picture: name a smaller "
                        "model, or set device to cpu"
                    ) from None
            torch.cuda.empty_cache()  # out of `except`, whose traceback holds the tensors
            self.size = len(some) // 2
            log.warning(
                "%s: %d pictures at once are too many for the GPU's memory: %d from now on",
                self.key,
                len(some),
                self.size,
            )
        return done
