"""diffusers' switches for memory and speed, where what they do by default would not fit a personalised U-Net.

Its branches live in attention processors, and its entrances are more than one `forward`: whoever replaces a processor
takes the person away, and hooks on `forward` alone are not asked.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.hooks import apply_group_offloading
from diffusers.pipelines.pipeline_utils import StableDiffusionMixin
from torch import nn

from iy.diffusion import TextEncoders
from iy.errors import UserError
from iy.model.personaliser import Personaliser

WHOLE = ("model", "text")  # no forward of their own; of text, each encoder has one


class Memory(StableDiffusionMixin):
    """The part of the pipeline that spares memory; see `iy.model.pipeline`."""

    model_cpu_offload_seq = "text->model->vae"
    _exclude_from_cpu_offload = ["model"]
    model: Personaliser
    vae: nn.Module
    text: TextEncoders | None

    def enable_group_offload(
        self,
        onload_device: torch.device | str,
        offload_device: torch.device | str = "cpu",
        *args: Any,
        exclude_modules: Sequence[str] | str | None = None,
        **how: Any,
    ) -> None:
        """diffusers' own for the text encoders and the VAE; the U-Net stays on `onload_device` as a whole."""
        excluded = {exclude_modules} if isinstance(exclude_modules, str) else set(exclude_modules or ())
        onload_device, offload_device = torch.device(onload_device), torch.device(offload_device)
        offloaded = [] if self.text is None or "text" in excluded else encoders(self.text)
        super().enable_group_offload(onload_device, offload_device, *args, exclude_modules=[*excluded, *WHOLE], **how)
        for encoder in offloaded:
            apply_group_offloading(encoder, onload_device, offload_device, *args, **how)

    def set_use_memory_efficient_attention_xformers(self, valid: bool, attention_op: Callable | None = None) -> None:
        if valid:
            raise UserError("xformers would take the person's attention out: leave it off; PyTorch's own is as sparing")

    def fuse_qkv_projections(self, unet: bool = True, vae: bool = True) -> None:
        if unet:
            raise UserError("fuse_qkv_projections would take the person's attention out: give unet=False for the VAE's")
        super().fuse_qkv_projections(unet=False, vae=vae)

    def unfuse_qkv_projections(self, unet: bool = True, vae: bool = True) -> None:
        super().unfuse_qkv_projections(unet=False, vae=vae)


def encoders(text: TextEncoders) -> list[nn.Module]:
    """Every encoder of every branch."""
    branches = [one for branch in text.values() for one in (branch, branch.second) if one is not None]
    return [branch.encoder for branch in branches]
