"""Text to hidden states, images to latents and back. Everything here runs without gradients: these parts are frozen."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from iy.diffusion.base import POOLED, Base, Branch, TextEncoders
from iy.errors import UserError

TextStates = dict[str, tuple[torch.Tensor, torch.Tensor]]

log = logging.getLogger(__name__)


def encode_text(base: Base, prompts: Sequence[str]) -> TextStates:
    """Hidden states (B, L, D) and mask (B, L; True = a real token) of every text branch, L the longest prompt.

    And, for bases that take one, the `POOLED` embedding (B, 1, D).
    """
    return text_states(base.text, prompts)


@torch.no_grad()
def text_states(
    text: TextEncoders, prompts: Sequence[str], fixed_length: bool = False, device: torch.device | None = None
) -> TextStates:
    """`encode_text` for the branches alone; with `fixed_length`, L is each branch's limit whatever the prompts.

    device: where they compute, if not where their weights lie.
    """
    states, listed = {}, list(prompts)
    for name, branch in text.items():
        tokens = tokenized(name, branch, listed, fixed_length, device)
        output = branch.encoder(**tokens, output_hidden_states=branch.second is not None)
        states[name] = output.last_hidden_state, tokens["attention_mask"].bool()
        if branch.second:
            other = tokenized(f"{name}.second", branch.second, listed, fixed_length, device)
            states |= joined(name, branch.second, output, tokens, other, listed)
    return states


def joined(
    name: str,
    second: Branch,
    first: Any,
    tokens: dict[str, torch.Tensor],
    other: dict[str, torch.Tensor],
    prompts: list[str],
) -> TextStates:
    """SDXL's own text: two encoders' penultimate states side by side and the second one's pooled embedding (B, 1, D).

    Zeros for empty prompts (diffusers' `force_zeros_for_empty_prompt`).
    """
    mask = tokens["attention_mask"].bool()
    if other["attention_mask"].shape != mask.shape:
        raise UserError(f"base.text.{name}.second: its tokenizer cuts prompts elsewhere than the first one's")
    output = second.encoder(**other, output_hidden_states=True)
    hidden = torch.cat([first.hidden_states[-2], output.hidden_states[-2]], 2)
    said = torch.tensor([bool(prompt) for prompt in prompts], device=hidden.device)[:, None, None]
    pooled = output.text_embeds[:, None] * said
    return {name: (hidden * said, mask), POOLED: (pooled, torch.ones_like(mask[:, :1]))}


def tokenized(
    name: str, branch: Branch, prompts: list[str], fixed_length: bool, device: torch.device | None
) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask` (B, L) as the branch's encoder takes them."""
    padding = "max_length" if fixed_length else "longest"
    limit = {"truncation": True, "max_length": branch.max_length}
    tokens = branch.tokenizer(prompts, padding=padding, return_tensors="pt", **limit)
    ids, mask = tokens.input_ids, tokens.attention_mask
    if bool(mask[:, -1].any()) and ids.shape[1] == branch.max_length:
        warn_cut(name, branch, prompts)
    device = device or branch.encoder.device
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def warn_cut(name: str, branch: Branch, prompts: list[str]) -> None:
    """Say which words a tokenizer's limit cuts off: the model never sees them."""
    for prompt in prompts:
        ids = branch.tokenizer(prompt, truncation=False, verbose=False).input_ids
        if len(ids) > branch.max_length:
            lost = branch.tokenizer.decode(ids[branch.max_length - 1 :], skip_special_tokens=True)
            log.warning("branch %s reads %d tokens of this prompt and not: %r", name, branch.max_length, lost)


def encode_images(base: Base, pixels: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Pixels (B, 3, H, W) in [-1, 1] to latents at the U-Net's scale; with a generator sampled, without it the mode."""
    return vae_encode(base.vae, pixels.to(base.device), generator)


def decode_latents(base: Base, latents: torch.Tensor) -> torch.Tensor:
    """Latents to pixels (B, 3, H, W), clipped to [-1, 1]."""
    return vae_decode(base.vae, latents)


@torch.no_grad()
def vae_encode(vae: Any, pixels: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    coded = vae.encode(pixels.to(vae.dtype))
    if hasattr(coded, "latent_dist"):
        latents = coded.latent_dist.mode() if generator is None else coded.latent_dist.sample(generator)
    else:  # AutoencoderTiny has one answer
        latents = coded.latents
    return (latents - shift(vae)) * vae.config.scaling_factor


@torch.no_grad()
def vae_decode(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    return vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor + shift(vae)).sample.clamp(-1, 1)


def shift(vae: Any) -> float:
    """Some autoencoders (SD 3, Flux) move their latents as well as scaling them; most state none."""
    return vae.config.get("shift_factor") or 0.0


def to_pixels(images: Sequence[np.ndarray]) -> torch.Tensor:
    """uint8 images (H, W, 3) of one size as float32 pixels (B, 3, H, W) in [-1, 1]."""
    stacked = torch.from_numpy(np.stack([np.ascontiguousarray(image) for image in images]))
    return stacked.permute(0, 3, 1, 2).float() / 127.5 - 1
