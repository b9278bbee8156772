"""The studio's AutoencoderKL: 64 x 64 x 3 pixels <-> 16 x 16 x 4 latents."""

import numpy as np
import torch
from diffusers import AutoencoderKL

from foundation.train import Plan, fit
from iy.finetune.examples import face_map

FACE = 6.0  # weight of the face's pixels
RATE = 2e-3

CONFIG = dict(
    in_channels=3,
    out_channels=3,
    latent_channels=4,
    block_out_channels=(16, 32, 96),
    layers_per_block=1,
    down_block_types=("DownEncoderBlock2D",) * 3,
    up_block_types=("UpDecoderBlock2D",) * 3,
    norm_num_groups=8,
    sample_size=64,
    mid_block_add_attention=False,
)


def pixels(images: np.ndarray) -> torch.Tensor:
    """uint8 (N, H, W, 3) -> float (N, 3, H, W) in [-1, 1], channels last."""
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(
        memory_format=torch.channels_last
    )


def build(seed: int = 1) -> AutoencoderKL:
    torch.manual_seed(seed)
    return AutoencoderKL(**CONFIG).to(memory_format=torch.channels_last)


def train(
    vae: AutoencoderKL,
    images: np.ndarray,
    boxes: np.ndarray,
    plan: Plan,
    batch: int = 16,
    seed: int = 1,
) -> AutoencoderKL:
    """L1 + squared error on pixels and on their differences (edges), and a slight pull of the latents to unit variance.

    `boxes` (N, 4): faces in pixels, NaN without one. They count `FACE` times: with equal weights the backdrop was
    sharp and the face, a fifth of the picture, a blur in which two of five people could not be told apart any more.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)

    def loss(step: int) -> torch.Tensor:
        pick = rng.integers(len(images), size=batch * plan.times)
        weight = torch.stack([face_map(box, images.shape[1:3], FACE) for box in boxes[pick]]).to(plan.device)
        x = pixels(images[pick]).to(plan.device)
        code = vae.encode(x).latent_dist
        error = vae.decode(code.sample()).sample - x
        edges = sum((error.diff(dim=d).abs() * weight.narrow(d, 0, error.shape[d] - 1)).mean() for d in (2, 3))
        return (
            (error.abs() * weight).mean() + 2 * (error.square() * weight).mean() + edges + 1e-5 * code.kl().mean() / 64
        )

    fit(plan, vae, loss, decay=0.998)
    vae.register_to_config(scaling_factor=scaling(vae, images[:1024]))
    return vae


@torch.no_grad()
def scaling(vae: AutoencoderKL, images: np.ndarray) -> float:
    """One over the latents' standard deviation, so that the U-Net sees unit variance."""
    return float(
        1
        / torch.cat(
            [vae.encode(pixels(part).to(vae.device)).latent_dist.mode() for part in np.array_split(images, 16)]
        ).std()
    )


@torch.no_grad()
def latents(vae: AutoencoderKL, images: np.ndarray) -> torch.Tensor:
    """The posteriors' modes, scaled to unit variance (N, 4, 16, 16)."""
    batches = np.array_split(images, max(1, len(images) // 64))
    parts = [vae.encode(pixels(part).to(vae.device)).latent_dist.mode().cpu() for part in batches]
    return torch.cat(parts) * vae.config.scaling_factor


@torch.no_grad()
def reconstructions(vae: AutoencoderKL, latents: torch.Tensor) -> np.ndarray:
    """Scaled latents (N, 4, 16, 16) as pictures uint8 (N, 64, 64, 3)."""
    parts = [vae.decode(part.to(vae.device) / vae.config.scaling_factor).sample.cpu() for part in latents.split(64)]
    return np.concatenate(
        [((part.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy() for part in parts]
    )


@torch.no_grad()
def psnr(vae: AutoencoderKL, images: np.ndarray) -> float:
    """Mean over images of 10 log10(255^2 / squared error), dB."""
    error = reconstructions(vae, latents(vae, images)).astype(np.float32) - images
    return float(np.mean(10 * np.log10(255**2 / np.square(error).mean((1, 2, 3)))))
