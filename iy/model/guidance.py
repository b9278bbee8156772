"""Classifier-free guidance with one strength for the text and one for the person.

    ε = ε_∅ + g_text (ε_text − ε_∅) + g_id (ε_text,id − ε_text)
      = (1 − g_text) ε_∅ + (g_text − g_id) ε_text + g_id ε_text,id

A term of weight 0 is not computed: three evaluations in general, two when both strengths are equal (the usual joint
guidance), one when both are 1.
"""

from dataclasses import dataclass
from functools import reduce

import torch

from iy.model.attention import Context, Tokens
from iy.model.conditioning import Vision, stack, together, without_vision
from iy.model.personaliser import Personaliser


@dataclass(slots=True)
class Guide:
    """The weights of the parts that are evaluated, in their order in the context's rows, and how to rescale.

    rescale: 0 leaves the result; 1 gives it the deviation of the fully conditioned part (arXiv 2305.08891 §3.4).
    """

    weights: list[float]
    context: Context
    rescale: float

    def denoise(self, model: Personaliser, latents: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The guided prediction for latents (B, C, h, w)."""
        parts = model.denoise(torch.cat([latents] * len(self.weights)), t, self.context).chunk(len(self.weights))
        weighted = [weight * part for weight, part in zip(self.weights, parts, strict=True)]
        guided = reduce(torch.add, weighted)
        if self.rescale == 0:
            return guided
        ratio = deviation(parts[-1]) / deviation(guided)
        return self.rescale * guided * ratio + (1 - self.rescale) * guided


def deviation(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(1).std(1).view(-1, 1, 1, 1)


def plan(
    model: Personaliser,
    text: Tokens,
    blank: Tokens,
    vision: Vision | None,
    guidance: float,
    identity: float,
    rescale: float,
    strength: dict[str, float] | None = None,
) -> Guide:
    """text, blank: states of the prompts and of the negative prompts; vision: reference tokens; B rows each."""
    if vision is None:
        terms = [(1 - guidance, blank, None), (guidance, text, None)]
    else:
        absent = without_vision(vision, torch.ones(len(vision.mask), dtype=torch.bool, device=vision.mask.device))
        terms = [(1 - guidance, blank, absent), (guidance - identity, text, absent), (identity, text, vision)]
    # The last part stays even at weight 0: it is what rescaling looks at, and something must be evaluated.
    kept = [term for term in terms[:-1] if term[0] != 0] + terms[-1:]
    seen = [term[2] for term in kept if term[2] is not None]
    context = model.context(stack([term[1] for term in kept]), together(seen) if seen else None, strength)
    return Guide([float(term[0]) for term in kept], context, rescale)
