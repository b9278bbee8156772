"""What the references say, and leaving conditions out: of training (dropout) and of guidance's halves."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from iy.diffusion import POOLED
from iy.model.attention import Tokens


class Vision(NamedTuple):
    """Tokens (B, N·T, D) of N references and their mask (B, N·T), True = there.

    weight (B, N·T): how strongly each token's person is drawn, 1 where None; it scales the token's value, so that 0
    leaves the person out of the picture but not out of the softmax. regions bool (B, N, h, w), at the latents' size:
    where in the picture each person belongs; None = anywhere.
    """

    tokens: torch.Tensor
    mask: torch.Tensor
    weight: torch.Tensor | None = None
    regions: torch.Tensor | None = None

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Vision":
        """Every tensor replaced by `change(tensor)`."""
        weight = None if self.weight is None else change(self.weight)
        regions = None if self.regions is None else change(self.regions)
        return Vision(change(self.tokens), change(self.mask), weight, regions)


def without_text(text: Tokens, empty: Tokens, own: str, dropped: torch.Tensor) -> Tokens:
    """`text` (B rows) where the rows marked in `dropped` (B,) carry no prompt.

    The base's own branch, and the pooled embedding if it takes one, are then the empty prompt's, as it was trained;
    `empty` holds them (1, L, D). The added branches have all tokens masked and contribute exactly 0.
    """

    def change(name: str, hidden: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if name not in (own, POOLED):
            return hidden, mask & ~dropped[:, None]
        (hidden, mask), (blank, blank_mask) = common_length([(hidden, mask), empty[name]])
        blank, blank_mask = blank.to(hidden.dtype).expand_as(hidden), blank_mask.expand_as(mask)
        return torch.where(dropped[:, None, None], blank, hidden), torch.where(dropped[:, None], blank_mask, mask)

    return {name: change(name, *pair) for name, pair in text.items()}


def without_vision(vision: Vision, dropped: torch.Tensor) -> Vision:
    """`vision` where the references of the rows marked in `dropped` (B,) contribute exactly 0."""
    return vision._replace(mask=vision.mask & ~dropped[:, None])


def together(parts: list[Vision]) -> Vision:
    """The rows of several visions of the same references below one another."""
    weights = [part.weight for part in parts if part.weight is not None]
    regions = [part.regions for part in parts if part.regions is not None]
    return Vision(
        torch.cat([part.tokens for part in parts]),
        torch.cat([part.mask for part in parts]),
        torch.cat(weights) if weights else None,
        torch.cat(regions) if regions else None,
    )


def stack(parts: list[Tokens]) -> Tokens:
    """The rows of several token maps of the same branches below one another, padded to a common length."""
    joined = {}
    for name in parts[0]:
        hidden, masks = zip(*common_length([part[name] for part in parts]), strict=True)
        joined[name] = torch.cat(hidden), torch.cat(masks)
    return joined


def common_length(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Hidden states (B, L, D) and masks (B, L), the shorter ones padded with masked zeros."""
    longest = max(mask.shape[1] for _, mask in pairs)

    def pad(hidden: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        missing = longest - mask.shape[1]
        return torch.nn.functional.pad(hidden, (0, 0, 0, missing)), torch.nn.functional.pad(mask, (0, missing))

    return [pad(*pair) for pair in pairs]
