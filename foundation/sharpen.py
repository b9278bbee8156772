"""The decoder alone goes on learning, after everything else.

It learns to draw faces in which a recogniser sees what it sees in the photo. Squared errors leave a face that is right
on average. Of twelve people photographed, dlib's network named the right one for 0.87 of the pictures that the
autoencoder gave back, the judge for 0.89; of the photos themselves both name all. The encoder stays, and so does every
latent: what the U-Net has learnt holds.
"""

import copy

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import nn

from foundation.autoencoder import FACE, pixels
from foundation.recogniser import Recogniser, from_elsewhere
from foundation.renders import Faces
from foundation.train import Plan, fit
from iy.finetune.examples import face_map

RATE = 5e-4
LIKE = 1.0  # weight of how unlike the recogniser sees the two pictures
STRAY = 0.15  # the largest deviation of the noise on latents: a U-Net's are not exact


def train(
    vae: AutoencoderKL,
    latents: torch.Tensor,
    images: np.ndarray,
    faces: Faces,
    recogniser: Recogniser,
    plan: Plan,
    batch: int = 16,
    seed: int = 13,
) -> AutoencoderKL:
    """A copy of `vae` with another decoder. latents (N, 4, 16, 16), scaled, of images uint8 (N, 64, 64, 3)."""
    vae = copy.deepcopy(vae).to(plan.device)
    rng, noises = np.random.default_rng(seed), torch.Generator(plan.device).manual_seed(seed)
    decoder = (
        nn.ModuleDict({"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv}).requires_grad_(True).train()
    )
    rows = np.flatnonzero(np.isfinite(faces.box[:, 0]))

    def loss(step: int) -> torch.Tensor:
        pick = rng.choice(rows, batch * plan.times)
        wanted = pixels(images[pick]).to(plan.device)
        code = latents[torch.from_numpy(pick)].to(plan.device)
        stray = torch.from_numpy(rng.uniform(0, STRAY, (len(pick), 1, 1, 1))).float().to(plan.device)
        code = code + stray * torch.randn(code.shape, generator=noises, device=plan.device)
        drawn = vae.decode(code / vae.config.scaling_factor).sample
        weight = torch.stack([face_map(box, images.shape[1:3], FACE) for box in faces.box[pick]]).to(plan.device)
        error = drawn - wanted
        both, landmarks = from_elsewhere(torch.cat([drawn, wanted], 1), faces.landmarks[pick], rng)
        ours, theirs = both.split(3, 1)
        with torch.no_grad():
            right = recogniser.maps(theirs, landmarks)
        unlike = recogniser.unlike(recogniser.maps(ours, landmarks), right)
        return (error.abs() * weight).mean() + 2 * (error.square() * weight).mean() + LIKE * unlike.mean()

    fit(plan, decoder, loss, decay=0.995)
    return vae.eval()
