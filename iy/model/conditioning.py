"""Leaving conditions out: of training (dropout) and of classifier-free guidance's halves."""
import torch

from iy.model.attention import Tokens

Vision = tuple[torch.Tensor, torch.Tensor]


def without_text(text: Tokens, empty: Tokens, own: str, dropped: torch.Tensor) -> Tokens:
    """`text` (B rows) where the rows marked in `dropped` (B,) carry no prompt.

    The base's own branch then reads the empty prompt, as it was trained to; `empty` holds its states (1, L, D). The
    added branches have all tokens masked and contribute exactly 0.
    """
    changed = {name: (hidden, mask & ~dropped[:, None]) for name, (hidden, mask) in text.items() if name != own}
    (hidden, mask), (blank, blank_mask) = common_length([text[own], empty[own]])
    blank, blank_mask = blank.to(hidden.dtype).expand_as(hidden), blank_mask.expand_as(mask)
    changed[own] = (torch.where(dropped[:, None, None], blank, hidden), torch.where(dropped[:, None], blank_mask, mask))
    return {name: changed[name] for name in text}


def without_vision(vision: Vision, dropped: torch.Tensor) -> Vision:
    """`vision` where the references of the rows marked in `dropped` (B,) contribute exactly 0."""
    tokens, mask = vision
    return tokens, mask & ~dropped[:, None]


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
