"""What the pipeline encodes before it draws: prompts, negative prompts and references, or what was kept of them."""

from collections.abc import Sequence
from typing import Any

import torch

from iy.diffusion import POOLED, TextEncoders, text_states
from iy.errors import UserError
from iy.model import inputs
from iy.model.attention import Tokens
from iy.model.conditioning import Vision
from iy.model.personaliser import Personaliser


class Encoding:
    """The part of the pipeline that encodes; see `iy.model.pipeline`."""

    model: Personaliser
    text: TextEncoders | None
    _execution_device: torch.device
    _execution_dtype: torch.dtype

    def see(
        self,
        rows: list[list[inputs.Picture]],
        cropper: inputs.Cropper | None,
        weights: torch.Tensor | None,
        regions: torch.Tensor | None,
    ) -> Vision | None:
        """Tokens and mask of each prompt's references, how strongly each is drawn (B, N), and where (B, N, h, w)."""
        seen = inputs.reference_pixels(rows, self.model.vision.image_size, cropper)
        if seen is None:
            return None
        pixels, present = seen
        device = self._execution_device
        vision = self.model.vision_tokens(pixels.to(device, self._execution_dtype), present.to(device))
        if weights is not None:
            weights = weights.repeat_interleave(self.model.vision.tokens, 1).to(vision.tokens)
        return vision._replace(weight=weights, regions=None if regions is None else regions.to(device))

    def encode_prompt(self, prompt: str | Sequence[str], fixed_length: bool = False) -> Tokens:
        """States and masks of the prompts for `prompt_embeds`: the text encoders need not run again."""
        return self.states(inputs.prompts(prompt), fixed_length)

    def encode_negative(
        self, prompt: str | Sequence[str | None] | None, count: int = 1, fixed_length: bool = False
    ) -> Tokens:
        """What guidance leads away from, for `negative_prompt_embeds`: `count` negative prompts, or no text."""
        texts = inputs.negatives(prompt, count)
        return self.away(self.states([text or "" for text in texts], fixed_length), texts)

    def away(self, states: Tokens, negatives: list[str | None]) -> Tokens:
        written = torch.tensor([text is not None for text in negatives], device=self._execution_device)[:, None]
        # Without a negative prompt the own branch reads "", as the base was trained to; the added ones nothing.
        return {
            name: (hidden, mask if name in (self.model.own, POOLED) else mask & written)
            for name, (hidden, mask) in states.items()
        }

    def encode_reference(
        self, reference: inputs.Picture | Sequence[inputs.Picture], face_cropper: inputs.Cropper | None = None
    ) -> Vision:
        """Tokens of one person's picture or pictures, for `reference_embeds`."""
        vision = self.see(inputs.references(reference, True, 1), face_cropper, None, None)
        if vision is None:
            raise UserError("encode_reference: there is no picture among what was given")
        return vision

    def states(self, prompts: Sequence[str], fixed_length: bool) -> Tokens:
        if self.text is None:
            raise UserError("the text encoders were freed: give prompt_embeds and negative_prompt_embeds")
        states = text_states(self.text.ready(), prompts, fixed_length, self._execution_device)
        return {name: (hidden.to(self._execution_dtype), mask) for name, (hidden, mask) in states.items()}

    def free_text(self) -> None:
        """Give the text encoders' memory back; from here on prompts come as `prompt_embeds`."""
        self.text = None

    def read(
        self,
        prompt: str | Sequence[str] | None,
        negative: str | Sequence | None,
        embeds: Tokens | None,
        negative_embeds: Tokens | None,
        fixed_length: bool,
    ) -> tuple[Tokens, Tokens]:
        """States of the prompts and of what guidance leads away from, encoded or as they were given."""
        if (prompt is None) == (embeds is None):
            raise UserError("give prompt or prompt_embeds, and not both")
        if negative is not None and negative_embeds is not None:
            raise UserError("give negative_prompt or negative_prompt_embeds, not both")
        if prompt is not None and negative_embeds is None:  # one pass of the encoders for both
            texts = inputs.prompts(prompt)
            negatives = inputs.negatives(negative, len(texts))
            both = self.states(texts + [text or "" for text in negatives], fixed_length)
            first, second = (
                {name: (hidden[rows], mask[rows]) for name, (hidden, mask) in both.items()}
                for rows in (slice(len(texts)), slice(len(texts), None))
            )
            return first, self.away(second, negatives)
        words = self.given("prompt_embeds", embeds) if prompt is None else self.encode_prompt(prompt, fixed_length)
        count = len(words[self.model.own][1])
        if negative_embeds is None:
            return words, self.encode_negative(negative, count, fixed_length)
        blank = self.given("negative_prompt_embeds", negative_embeds)
        rows = len(blank[self.model.own][1])
        if rows not in (1, count):
            raise UserError(f"negative_prompt_embeds: {rows} rows for {count} prompts; give one, or one per prompt")
        return words, blank if rows == count else repeat(blank, count)

    def given(self, name: str, embeds: Tokens | None) -> Tokens:
        """Embeddings of the caller, checked to be of this model's branches, on its device and in its dtype."""
        if not isinstance(embeds, dict):
            found = type(embeds).__name__
            raise UserError(
                f"{name}: give what encode_prompt or encode_negative returns, states by branch; not a {found}"
            )
        inputs.check_embeds(name, embeds, self.model.own, self._execution_device, self._execution_dtype)
        return embeds


def repeat(part: Any, times: int) -> Any:
    """Every row of a token map, of a (tokens, mask) pair or of a `Vision`, `times` times in a row."""
    if part is None or times == 1:
        return part
    if isinstance(part, dict):
        return {name: repeat(pair, times) for name, pair in part.items()}
    if isinstance(part, Vision):
        return part.map(lambda x: x.repeat_interleave(times, 0))
    return tuple(x.repeat_interleave(times, 0) for x in part)
