"""Pictures of validation people while training: reference beside drawing, from states that are already encoded."""

from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

from iy import params
from iy.diffusion import Base, vae_decode
from iy.finetune.examples import Examples
from iy.model import Personaliser
from iy.model.conditioning import without_text
from iy.model.guidance import plan


class Preview:
    """The first `count` validation examples; always the same noise, drawn as the settings' `draw` says."""

    def __init__(
        self, model: Personaliser, base: Base, examples: Examples, settings: params.Draw, count: int, seed: int
    ):
        self.model, self.vae, self.settings = model, base.vae, settings
        rows = np.linspace(0, len(examples) - 1, min(count, len(examples))).astype(int)
        self.batch = examples.batch(rows, examples.reference[rows], 1.0).to(base.device, base.unet.dtype)
        empty = {
            name: (hidden.to(base.device, base.unet.dtype), mask.to(base.device))
            for name, (hidden, mask) in examples.no_text().items()
        }
        nobody = torch.ones(len(rows), dtype=torch.bool, device=base.device)
        self.blank = without_text(self.batch.text, empty, model.own, nobody)
        solver: Any = DPMSolverMultistepScheduler  # `from_config` is annotated as giving one of two things
        self.scheduler = solver.from_config(base.scheduler.config, timestep_spacing="trailing")
        noise = torch.randn(self.batch.latents.shape, generator=torch.Generator().manual_seed(seed))
        self.noise = noise.to(self.batch.latents)

    @torch.no_grad()
    def draw(self) -> np.ndarray:
        """One picture, uint8 (2·size, count·size, 3): references above, drawings below."""
        references = self.batch.references
        present = torch.ones(references.shape[:2], dtype=torch.bool, device=references.device)
        vision = self.model.vision_tokens(references, present)
        guidance = self.settings.guidance
        guide = plan(self.model, self.batch.text, self.blank, vision, guidance, guidance, 0.0)
        self.scheduler.set_timesteps(self.settings.steps, device=self.noise.device)
        latents = self.noise
        for t in self.scheduler.timesteps:
            prediction = guide.denoise(self.model, latents, t).to(latents.dtype)
            latents = self.scheduler.step(prediction, t, latents).prev_sample
        drawn = vae_decode(self.vae, latents).float()
        above = torch.nn.functional.interpolate(references[:, 0].float(), drawn.shape[-2:], mode="bicubic").clamp(-1, 1)
        rows = [torch.cat(list(images), -1) for images in (above, drawn)]
        pixels = (torch.cat(rows, -2) + 1) * 127.5
        return pixels.round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
