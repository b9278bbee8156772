"""The studio's AutoencoderKL: 128 x 128 x 3 pixels <-> 16 x 16 x 8 latents, an eighth of the side.

Beside squared errors its decoder is asked to keep what a face recogniser sees on its way (`foundation.perceptual`): a
perceptual loss, as Stable Diffusion's autoencoder had (LPIPS). It learns to give pictures back, nothing about who is
who, and it is the only part of the foundation that any recogniser touches. The evaluation's own is not that one.
"""

import numpy as np
import torch
from diffusers import AutoencoderKL

from foundation import perceptual
from foundation.renders import SIDE, Renders
from foundation.train import Batch, Plan, fit, mixed

CHANNELS = 8
FACE = 4.0  # weight of the face's pixels: with equal weights the backdrop was sharp and the face a blur
LIKE = 0.5  # weight of the perceptual loss
SEEN = 0.25  # share of a batch that it looks at: chips are 150 px, and a large network reads them
STRAY = 0.12  # largest deviation of noise on the latents, in their own: a U-Net's are not exact
RATE = 1.2e-3

CONFIG = dict(
    in_channels=3,
    out_channels=3,
    latent_channels=CHANNELS,
    block_out_channels=(32, 64, 128, 128),
    layers_per_block=1,
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    norm_num_groups=8,
    sample_size=SIDE,
    mid_block_add_attention=False,
)


def pixels(images: torch.Tensor) -> torch.Tensor:
    """uint8 (B, 3, h, w) -> float in [-1, 1], channels last."""
    return (images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def tensor(images: np.ndarray) -> torch.Tensor:
    """uint8 (N, h, w, 3) -> uint8 (N, 3, h, w)."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def build(seed: int = 1) -> AutoencoderKL:
    torch.manual_seed(seed)
    return AutoencoderKL(**CONFIG).to(memory_format=torch.channels_last)


def train(vae: AutoencoderKL, renders: Renders, recogniser: torch.nn.Module, plan: Plan, seed: int = 1):
    """L1 and squared error, of differences between neighbours too (edges), the perceptual loss, and a slight pull of
    the latents to unit variance. The recogniser reads the first `SEEN` of a batch, whose faces were found."""
    rng, found = np.random.default_rng(seed), np.flatnonzero(renders.found)
    images, maps = tensor(renders.images).to(plan.device), face_maps(renders.box).to(plan.device)
    recogniser, seen = recogniser.to(plan.device), max(1, round(SEEN * plan.batch))

    def draw(step: int) -> Batch:
        pick = np.concatenate([rng.choice(found, seen), rng.integers(len(renders.images), size=plan.batch - seen)])
        return {
            "pick": torch.from_numpy(pick),
            "turned": torch.from_numpy(rng.random(plan.batch) < 0.5),
            "chips": perceptual.ways(renders.landmarks[pick[:seen]], rng),
        }

    def loss(batch: Batch) -> torch.Tensor:
        x, weight = pixels(images[batch["pick"]]), maps[batch["pick"]].float()
        turned = batch["turned"][:, None, None, None].clone()
        turned[:seen] = False  # chips are mirrored by their own matrices
        x, weight = torch.where(turned, x.flip(3), x), torch.where(turned, weight.flip(3), weight)
        with mixed(plan.device):
            code = vae.encode(x).latent_dist
            z = code.sample()
            z = z + STRAY * torch.rand(len(z), 1, 1, 1, device=z.device) * z.detach().std() * torch.randn_like(z)
            drawn = vae.decode(z).sample.float()
        error = drawn - x
        edges = sum((error.diff(dim=d).abs() * weight.narrow(d, 0, error.shape[d] - 1)).mean() for d in (2, 3))
        alike = perceptual.unlike(recogniser, drawn[:seen], x[:seen], batch["chips"])
        kl = code.kl().float().mean() / (SIDE * SIDE)
        return (error.abs() * weight).mean() + 2 * (error.square() * weight).mean() + edges + LIKE * alike + 1e-4 * kl

    fit(plan, vae, draw, loss, decay=0.998)
    vae.register_to_config(scaling_factor=scaling(vae, images[:1024]))
    return vae


def face_maps(boxes: np.ndarray) -> torch.Tensor:
    """Half-precision weights (N, 1, 128, 128) with mean 1, `FACE` times as much inside the face."""
    maps = torch.ones(len(boxes), 1, SIDE, SIDE)
    for one, box in zip(maps, boxes, strict=True):
        if np.isfinite(box).all():
            x0, y0, x1, y1 = np.clip(box, 0, SIDE).round().astype(int)
            one[:, y0:y1, x0:x1] = FACE
    return (maps / maps.mean((1, 2, 3), keepdim=True)).half()


@torch.no_grad()
def modes(vae: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """The posteriors' modes (N, 8, 16, 16), not scaled, of uint8 (N, 3, 128, 128)."""
    with mixed(vae.device):
        parts = [vae.encode(pixels(part.to(vae.device))).latent_dist.mode().float() for part in images.split(128)]
    return torch.cat(parts)


def scaling(vae: AutoencoderKL, images: torch.Tensor) -> float:
    """One over the latents' standard deviation, so that the U-Net sees unit variance."""
    return float(1 / modes(vae, images).std())


def latents(vae: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """The posteriors' modes, scaled to unit variance (N, 8, 16, 16)."""
    return modes(vae, images) * vae.config.scaling_factor


@torch.no_grad()
def reconstructions(vae: AutoencoderKL, latents: torch.Tensor) -> np.ndarray:
    """Scaled latents (N, 8, 16, 16) as pictures uint8 (N, 128, 128, 3)."""
    parts = [vae.decode(part.to(vae.device) / vae.config.scaling_factor).sample.cpu() for part in latents.split(64)]
    pictures = [((part.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy() for part in parts]
    return np.concatenate(pictures)


def psnr(vae: AutoencoderKL, images: np.ndarray) -> float:
    """Mean over images of 10 log10(255^2 / squared error), dB."""
    error = reconstructions(vae, latents(vae, tensor(images))).astype(np.float32) - images
    return float(np.mean(10 * np.log10(255**2 / np.square(error).mean((1, 2, 3)))))
