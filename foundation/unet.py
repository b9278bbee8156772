"""The studio's text-to-image U-Net: v-prediction on 16 x 16 x 8 latents, conditioned on CLIP text, as SD is.

It learns from renders and their captions and nothing else: it is never shown a reference, and nobody who recognises
people has a say in its loss. Whatever draws a *person* is learnt by the stages, on this U-Net, frozen.
"""

from typing import NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch.nn import functional as F

from foundation.autoencoder import CHANNELS, latents, tensor
from foundation.language import WIDTH
from foundation.train import Batch, Plan, fit, mixed

CONFIG = dict(
    sample_size=16,
    in_channels=CHANNELS,
    out_channels=CHANNELS,
    block_out_channels=(96, 128, 160),
    layers_per_block=1,
    norm_num_groups=16,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    cross_attention_dim=WIDTH,
    attention_head_dim=(3, 4, 5),
)
RATE = 1.2e-3
DROPPED = 0.1  # share of captions left out, for classifier-free guidance
ZOOM, SHIFT, TINT = (
    0.05,
    0.04,
    0.06,
)  # a view of a render: scaled, moved (in half pictures), brightened, at most so much
SCHEDULE = dict(
    num_train_timesteps=1000,
    beta_schedule="scaled_linear",
    beta_start=0.00085,
    beta_end=0.012,
    prediction_type="v_prediction",
    rescale_betas_zero_snr=False,
    timestep_spacing="trailing",
    clip_sample=False,
)


class Lesson(NamedTuple):
    """latents (V, 8, 16, 16), bfloat16: views of the renders; first int (V,): row of a view's first caption, of
    `styles` in a row; states (C, L, D) and mask (C, L) of captions, the last one empty. All on the device."""

    latents: torch.Tensor
    first: torch.Tensor
    styles: int
    states: torch.Tensor
    mask: torch.Tensor


def build(seed: int = 4) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    return UNet2DConditionModel(**CONFIG).to(memory_format=torch.channels_last)


def train(unet: UNet2DConditionModel, lesson: Lesson, plan: Plan, seed: int = 4) -> UNet2DConditionModel:
    """The error of v, every timestep alike: Min-SNR all but silences the noisiest ones, where pose is settled."""
    rng, share = np.random.default_rng(seed), DDPMScheduler(**SCHEDULE).alphas_cumprod.to(plan.device)

    def draw(step: int) -> Batch:
        return {
            "pick": torch.from_numpy(rng.integers(len(lesson.latents), size=plan.batch)),
            "style": torch.from_numpy(rng.integers(lesson.styles, size=plan.batch)),
            "dropped": torch.from_numpy(rng.random(plan.batch) < DROPPED),
            "t": torch.from_numpy((rng.permutation(plan.batch) + rng.random(plan.batch)) / plan.batch * 1000).long(),
        }

    def loss(batch: Batch) -> torch.Tensor:
        x = lesson.latents[batch["pick"]].float()
        caption = lesson.first[batch["pick"]] + batch["style"]
        caption = torch.where(batch["dropped"], len(lesson.states) - 1, caption)
        noise, kept = torch.randn_like(x), share[batch["t"]][:, None, None, None]
        noisy = kept.sqrt() * x + (1 - kept).sqrt() * noise
        wanted = kept.sqrt() * noise - (1 - kept).sqrt() * x
        with mixed(plan.device):
            said, mask = lesson.states[caption], lesson.mask[caption]
            noisy = noisy.contiguous(memory_format=torch.channels_last)
            v = unet(noisy, batch["t"], said.to(noisy.dtype), encoder_attention_mask=mask).sample
        return F.mse_loss(v.float(), wanted)

    return fit(plan, unet, draw, loss, decay=0.9995, muon=True)


@torch.no_grad()
def views(vae: AutoencoderKL, images: np.ndarray, count: int, turns: np.ndarray, seed: int = 6) -> torch.Tensor:
    """Latents (2 · count · N, 8, 16, 16), bfloat16, on the autoencoder's device: of every render `count` views, the
    first as it is, then those of its mirror images, or of itself where it must not be turned (turns (N,) False): there
    is something to read. A U-Net that sees every picture hundreds of times would learn them by heart."""
    generator, found = torch.Generator().manual_seed(seed), []
    may = torch.from_numpy(turns)
    for number in range(2 * count):
        for part, turn in zip(tensor(images).split(1024), may.split(1024), strict=True):
            part, turn = part.to(vae.device), turn.to(vae.device)[:, None, None, None] & (number >= count)
            part = torch.where(turn, part.flip(3), part)
            seen = part if number % count == 0 else moved(part, generator)
            found.append(latents(vae, seen).bfloat16())
    return torch.cat(found)


def moved(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """uint8 (B, 3, h, w), each zoomed, shifted and brightened or darkened a little."""
    zoom, across, down, tint = (torch.rand(4, len(images), generator=generator) * 2 - 1).to(images.device)
    scale, nothing = 1 - ZOOM * (zoom + 1) / 2, torch.zeros_like(zoom)
    grid = torch.stack([scale, nothing, SHIFT * across, nothing, scale, SHIFT * down], 1).reshape(-1, 2, 3)
    places = F.affine_grid(grid, list(images.shape), align_corners=False)
    seen = F.grid_sample(images.float(), places, mode="bicubic", padding_mode="reflection", align_corners=False)
    return (seen * (1 + TINT * tint)[:, None, None, None]).round().clamp(0, 255).to(torch.uint8)
