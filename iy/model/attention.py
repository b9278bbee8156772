"""Fully parallel attention, the paper's Fig. 4: every cross-attention layer asks all sources side by side.

    out = W_o Σ_b α_b · softmax(Q K_bᵀ/√d) V_b,   b ∈ {vision, clip, ul2, byt5}

Q and W_o are the base's, and so are K and V of its own text branch. Every other branch has its own K and V; its V
passes through a matrix per head that starts at zero (vision: paper; the other text branches: our choice), so that a
fresh model is the base. A matrix per head can be taken into V, where it costs nothing: K and V do not depend on the
timestep, and a `Context` holds them for all layers and serves all denoising steps.

Shapes: B images, S spatial positions, L tokens of a branch, D width of its tokens, H heads, d head width, C = H·d.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import nn

Tokens = dict[str, tuple[torch.Tensor, torch.Tensor]]
KeysValues = dict[str, tuple[torch.Tensor, torch.Tensor]]
Masks = dict[str, torch.Tensor | None]
Place = tuple[torch.Tensor, torch.Tensor]


@dataclass(slots=True)
class Context:
    """What the U-Net attends to, given to it in place of `encoder_hidden_states`.

    `layers[i][branch]` is K, V of layer i, each (B, H, L, d). `masks[branch]` is (B, 1, 1, L), True = a real token, or
    None when all are. `present[branch]` is (B, 1, 1), 0 for images that do not have the branch, or None when all do.
    `strength[branch]`: run-time weight besides α, 1 where not named. `places[branch][S]`: for branches that not every
    position may read, mask (B, 1, S, L) and presence (B, S, 1) at a layer of S positions; they stand in for the above.
    `pooled` (B, D): what a U-Net with added conditions (SDXL's) takes of the text besides, or None. `sizes` (B or 1,
    6): its others, height and width of the original picture, top and left of the cut, height and width aimed at, in
    pixels; None: of a whole picture of the size that is drawn.
    """

    layers: list[KeysValues]
    masks: dict[str, torch.Tensor | None]
    present: dict[str, torch.Tensor | None]
    strength: dict[str, float] = field(default_factory=dict)
    places: dict[str, dict[int, Place]] = field(default_factory=dict)
    pooled: torch.Tensor | None = None
    sizes: torch.Tensor | None = None

    def mask(self, branch: str, positions: int) -> torch.Tensor | None:
        return self.places[branch][positions][0] if branch in self.places else self.masks[branch]

    def presence(self, branch: str, positions: int) -> torch.Tensor | None:
        return self.places[branch][positions][1] if branch in self.places else self.present[branch]

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Context":
        """The context with every tensor replaced by `change(tensor)`, e.g. `context.map(lambda x: x[:2])`."""
        optional = {name: None if mask is None else change(mask) for name, mask in self.masks.items()}
        present = {name: None if flag is None else change(flag) for name, flag in self.present.items()}
        places = {
            name: {size: (change(mask), change(flag)) for size, (mask, flag) in sizes.items()}
            for name, sizes in self.places.items()
        }
        return Context(
            [{name: (change(k), change(v)) for name, (k, v) in layer.items()} for layer in self.layers],
            optional,
            present,
            self.strength,
            places,
            None if self.pooled is None else change(self.pooled),
            self.sizes if self.sizes is None or len(self.sizes) == 1 else change(self.sizes),
        )


def places(mask: torch.Tensor, regions: torch.Tensor, levels: int) -> dict[int, Place]:
    """Which tokens each position may read, at every resolution of a U-Net with `levels` levels.

    mask (B, N·T) of the tokens of N people; regions bool (B, N, h, w) at the latents' size. A position outside all
    regions reads nothing: presence 0 erases what its softmax, over all tokens, would say.
    """
    found, each = {}, mask.shape[1] // regions.shape[1]
    for _ in range(levels):
        may = regions.flatten(2).repeat_interleave(each, 1).transpose(1, 2) & mask[:, None]  # (B, S, N·T)
        some = may.any(2, keepdim=True)
        found[may.shape[1]] = (may | ~some)[:, None], some
        regions = F.max_pool2d(regions.float(), 2, ceil_mode=True).bool()  # a stride-2 convolution rounds up too
    return found


def readable(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Split a token mask (B, L) into a mask that softmax can read, (B, 1, 1, L), and presence (B, 1, 1) or None.

    A row without any token would make softmax 0/0; it attends to all its tokens, and presence 0 erases that.
    """
    present = mask.any(1, keepdim=True)
    flag = None if bool(present.all()) else present[:, :, None]
    return (mask | ~present)[:, None, None], flag


class ParallelAttention(nn.Module):
    """The diffusers attention processor of one cross-attention layer (layer `index` of the U-Net).

    `widths` names the added branches and the width D of their tokens; `alpha` starts every branch's weight, the base's
    `own` one included. Parameters are per layer.
    """

    def __init__(self, attention: Attention, index: int, own: str, widths: dict[str, int], alpha: dict[str, float]):
        super().__init__()
        inner, size = attention.to_q.out_features, attention.to_q.out_features // attention.heads
        self.index, self.own, self.heads = index, own, attention.heads
        self.key = nn.ModuleDict({name: nn.Linear(width, inner, bias=False) for name, width in widths.items()})
        self.value = nn.ModuleDict({name: nn.Linear(width, inner, bias=False) for name, width in widths.items()})
        self.out = nn.ParameterDict({name: nn.Parameter(torch.zeros(self.heads, size, size)) for name in widths})
        self.alpha = nn.ParameterDict({name: nn.Parameter(torch.tensor(float(alpha[name]))) for name in [own, *widths]})

    def copy_text_projections(self, attention: Attention, branch: str) -> None:
        """Start `branch` (vision, in the paper) from the base's own text K and V; its tokens must have their width."""
        key, value = projections(attention)
        self.key[branch].load_state_dict(key.state_dict())
        self.value[branch].load_state_dict(value.state_dict())

    def keys_values(self, attention: Attention, tokens: Tokens) -> KeysValues:
        """K and V (B, H, L, d) of this layer for every branch in `tokens` (hidden (B, L, D), mask)."""

        own_key, own_value = projections(attention)

        def project(name: str, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            if name == self.own:
                return self.split(own_key(hidden)), self.split(own_value(hidden))
            return self.split(self.key[name](hidden)), self.split(self.value[name](hidden)) @ self.out[name]

        return {name: project(name, hidden) for name, (hidden, _) in tokens.items()}

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: Context,
        attention_mask: None = None,
        temb: None = None,
    ) -> torch.Tensor:
        """hidden_states (B, S, C_in) and the U-Net's context to (B, S, C_in)."""
        context = encoder_hidden_states
        kv, positions = context.layers[self.index], hidden_states.shape[1]
        query = self.split(attn.to_q(hidden_states))
        heard = self.attend(query, kv, {name: context.mask(name, positions) for name in kv})
        total = self.weight(self.own, context) * heard.pop(self.own)
        for name, answer in heard.items():
            term = self.weight(name, context) * answer
            present = context.presence(name, positions)
            total = total + (term if present is None else term * present)
        assert attn.to_out is not None, "only attention that ends before its output has none"
        return attn.to_out[1](attn.to_out[0](total))

    def weight(self, branch: str, context: Context) -> torch.Tensor:
        """α_b, times what the caller asks of the branch."""
        strength = context.strength.get(branch, 1.0)
        return self.alpha[branch] if strength == 1 else self.alpha[branch] * strength

    def attend(self, query: torch.Tensor, kv: KeysValues, masks: Masks) -> dict[str, torch.Tensor]:
        """Each branch's softmax(Q Kᵀ/√d) V, (B, S, C)."""
        return {name: merge(F.scaled_dot_product_attention(query, k, v, masks[name])) for name, (k, v) in kv.items()}

    def split(self, x: torch.Tensor) -> torch.Tensor:
        """(B, L, C) to (B, H, L, d)."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class ConcatenatedAttention(ParallelAttention):
    """The rejected alternative, kept as the ablation: one softmax over the tokens of all branches.

    Same parameters. Tokens of the added branches take a share of the softmax from the own text even while their outputs
    are zero, so a fresh model is *not* exactly the base here; absent branches take no share.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: Context,
        attention_mask: None = None,
        temb: None = None,
    ) -> torch.Tensor:
        context, positions = encoder_hidden_states, hidden_states.shape[1]
        masks = {name: self.readable(name, context, positions) for name in context.masks}
        return super().__call__(attn, hidden_states, dataclasses.replace(context, masks=masks, places={}))

    def readable(self, branch: str, context: Context, positions: int) -> torch.Tensor:
        """Which tokens of a branch take part in the softmax, bool (B, 1, S, L) with places, else (B, 1, 1, L)."""
        mask, flag = context.mask(branch, positions), context.presence(branch, positions)
        if mask is None:
            key = context.layers[self.index][branch][0]
            mask = key.new_ones(len(key), 1, 1, key.shape[2], dtype=torch.bool)
        mask = mask if flag is None else mask & flag[:, None].bool()
        return mask.expand(-1, -1, positions, -1) if context.places else mask

    def attend(self, query: torch.Tensor, kv: KeysValues, masks: Masks) -> dict[str, torch.Tensor]:
        """Each branch's share of softmax(Q [K_1 K_2 …]ᵀ/√d) applied to its V, (B, S, C)."""
        lengths = [k.shape[2] for k, _ in kv.values()]
        scores = query @ torch.cat([k for k, _ in kv.values()], 2).transpose(2, 3) / query.shape[-1] ** 0.5
        mask = torch.cat([mask for name in kv if (mask := masks[name]) is not None], 3)
        shares = scores.masked_fill(~mask, float("-inf")).softmax(-1).split(lengths, 3)
        return {name: merge(share @ v) for (name, (_, v)), share in zip(kv.items(), shares, strict=True)}


def projections(attention: Attention) -> tuple[nn.Module, nn.Module]:
    """K and V of the base's own text."""
    assert attention.to_k is not None and attention.to_v is not None, "cross-attention has both"
    return attention.to_k, attention.to_v


def merge(x: torch.Tensor) -> torch.Tensor:
    """(B, H, S, d) to (B, S, C)."""
    return x.transpose(1, 2).flatten(2)


KINDS = {"parallel": ParallelAttention, "concatenated": ConcatenatedAttention}
