"""Text to hidden states, images to latents and back. Everything here runs without gradients: these parts are frozen."""
import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from iy.diffusion.base import Base, Branch, TextEncoders

TextStates = dict[str, tuple[torch.Tensor, torch.Tensor]]

log = logging.getLogger(__name__)


def encode_text(base: Base, prompts: Sequence[str]) -> TextStates:
    """Hidden states (B, L, D) and mask (B, L; True = a real token) of every text branch, L the longest prompt."""
    return text_states(base.text, prompts)


@torch.no_grad()
def text_states(text: TextEncoders, prompts: Sequence[str], fixed_length: bool = False) -> TextStates:
    """`encode_text` for the branches alone; with `fixed_length`, L is each branch's limit whatever the prompts."""
    return {name: branch_states(name, branch, list(prompts), fixed_length) for name, branch in text.items()}


def branch_states(name: str, branch: Branch, prompts: list[str],
                  fixed_length: bool) -> tuple[torch.Tensor, torch.Tensor]:
    padding = "max_length" if fixed_length else "longest"
    limit = {"truncation": True, "max_length": branch.max_length}
    tokens = branch.tokenizer(prompts, padding=padding, return_tensors="pt", **limit)
    ids, mask = tokens.input_ids, tokens.attention_mask
    if bool(mask[:, -1].any()) and ids.shape[1] == branch.max_length:
        warn_cut(name, branch, prompts)
    device = branch.encoder.device
    hidden = branch.encoder(input_ids=ids.to(device), attention_mask=mask.to(device)).last_hidden_state
    return hidden, mask.bool().to(device)


def warn_cut(name: str, branch: Branch, prompts: list[str]) -> None:
    """Say which words a tokenizer's limit cuts off: the model never sees them."""
    for prompt in prompts:
        ids = branch.tokenizer(prompt, truncation=False, verbose=False).input_ids
        if len(ids) > branch.max_length:
            lost = branch.tokenizer.decode(ids[branch.max_length - 1:], skip_special_tokens=True)
            log.warning("branch %s reads %d tokens of this prompt and not: %r", name, branch.max_length, lost)


def encode_images(base: Base, pixels: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Pixels (B, 3, H, W) in [-1, 1] to latents at the U-Net's scale; with a generator sampled, without it the mode."""
    return vae_encode(base.vae, pixels, generator)


def decode_latents(base: Base, latents: torch.Tensor) -> torch.Tensor:
    """Latents to pixels (B, 3, H, W), clipped to [-1, 1]."""
    return vae_decode(base.vae, latents)


@torch.no_grad()
def vae_encode(vae: nn.Module, pixels: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    posterior = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
    latents = posterior.mode() if generator is None else posterior.sample(generator)
    return (latents - shift(vae)) * vae.config.scaling_factor


@torch.no_grad()
def vae_decode(vae: nn.Module, latents: torch.Tensor) -> torch.Tensor:
    return vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor + shift(vae)).sample.clamp(-1, 1)


def shift(vae: nn.Module) -> float:
    """Some autoencoders (SD 3, Flux) move their latents as well as scaling them; most state none."""
    return vae.config.get("shift_factor") or 0.0


def to_pixels(images: Sequence[np.ndarray]) -> torch.Tensor:
    """uint8 images (H, W, 3) of one size as float32 pixels (B, 3, H, W) in [-1, 1]."""
    stacked = torch.from_numpy(np.stack([np.ascontiguousarray(image) for image in images]))
    return stacked.permute(0, 3, 1, 2).float() / 127.5 - 1
