"""What one would run instead: diffusers' own pipeline with its IP-Adapter, on the parts of the same base.

Text: the base's own encoder alone. Reference: the same vision tower, all its tokens, as IP-Adapter's attention takes
them. The weights of its projection and of its keys and values are random: what is measured is time and memory.
"""

import copy
from typing import Any

from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from diffusers.models.embeddings import MultiIPAdapterImageProjection
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from torch import nn
from transformers import CLIPImageProcessor, CLIPTextModel

from iy.diffusion import Base, Branch


class Projection(nn.Sequential):
    """The tower's tokens (B, T, hidden) at the U-Net's width."""

    def __init__(self, hidden: int, width: int):
        super().__init__(nn.Linear(hidden, width), nn.LayerNorm(width))


def pipeline(base: Base) -> StableDiffusionPipeline | StableDiffusionXLPipeline:
    own, side = base.text[base.own], base.vision.config.image_size
    eyes = CLIPImageProcessor(
        size={"shortest_edge": side}, crop_size=side, image_mean=base.image_mean, image_std=base.image_std
    )
    parts: dict[str, Any] = dict(
        vae=base.vae,
        unet=with_adapter(base),
        scheduler=DPMSolverMultistepScheduler.from_config(base.scheduler.config, timestep_spacing="trailing"),
        tokenizer=own.tokenizer,
        feature_extractor=eyes,
        image_encoder=base.vision,
    )
    for one in (own, own.second):
        if one:
            one.tokenizer.model_max_length = one.max_length
    if own.second:
        made = StableDiffusionXLPipeline(
            text_encoder=plain(own), text_encoder_2=own.second.encoder, tokenizer_2=own.second.tokenizer, **parts
        )
    else:
        parts |= {"safety_checker": None, "requires_safety_checker": False}
        made = StableDiffusionPipeline(text_encoder=plain(own), **parts)
    made.set_progress_bar_config(disable=True)
    return made


def plain(own: Branch) -> CLIPTextModel:
    """The text encoder without a projection: those pipelines take an encoder's first output for what it is with one."""
    if isinstance(own.encoder, CLIPTextModel):
        return own.encoder
    encoder = CLIPTextModel(own.encoder.config)
    encoder.load_state_dict(own.encoder.text_model.state_dict())
    return encoder.to(own.encoder.device, own.encoder.dtype).eval()


def with_adapter(base: Base) -> UNet2DConditionModel:
    """The base's U-Net, weights shared, with IP-Adapter's attention to the tower's tokens."""
    unet = copy.deepcopy(base.unet, {id(weight): weight for weight in base.unet.parameters()})
    width, tower = unet.config.cross_attention_dim, base.vision.config
    tokens = 1 + (tower.image_size // tower.patch_size) ** 2
    layers: list[Any] = [part for name, part in unet.named_modules() if name.endswith(".attn2")]
    for attention in layers:
        attention.set_processor(
            IPAdapterAttnProcessor2_0(attention.to_q.out_features, width, (tokens,)).to(base.device, base.dtype)
        )
    projection = Projection(tower.hidden_size, width).to(base.device, base.dtype)
    unet.encoder_hid_proj = MultiIPAdapterImageProjection([projection])
    unet.register_to_config(encoder_hid_dim_type="ip_image_proj")
    return unet.requires_grad_(False).eval()
