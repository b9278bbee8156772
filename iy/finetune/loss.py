"""The training loss: predict the noise (or v) of noised latents, weighted by Min-SNR and by where the face is."""

from typing import Any

import torch
from diffusers.training_utils import compute_snr

from iy.errors import UserError


def target(scheduler: Any, latents: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """What the U-Net was trained to predict, as the base's scheduler says."""
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return scheduler.get_velocity(latents, noise, t)
    raise UserError(f"base.scheduler: prediction_type {kind!r} cannot be finetuned: use epsilon or v_prediction")


def snr_weight(scheduler: Any, t: torch.Tensor, gamma: float | None) -> torch.Tensor:
    """Min-SNR weights (B,) (arXiv 2303.09556): min(SNR, γ) / SNR for noise, min(SNR, γ) / (SNR + 1) for v.

    Without γ they are 1.
    """
    if gamma is None:
        return torch.ones(t.shape, device=t.device)
    snr = compute_snr(scheduler, t)
    divisor = snr + 1 if scheduler.config.prediction_type == "v_prediction" else snr.clamp(min=1e-8)
    return snr.clamp(max=gamma) / divisor


def weighted_mse(
    prediction: torch.Tensor, wanted: torch.Tensor, weight: torch.Tensor, per_row: torch.Tensor
) -> torch.Tensor:
    """Mean over B of per_row · mean over (C, h, w) of weight · (prediction − wanted)²; weight (B, 1, h, w)."""
    error = (prediction.float() - wanted.float()).square() * weight
    return (error.flatten(1).mean(1) * per_row).mean()
