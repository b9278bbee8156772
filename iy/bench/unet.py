"""One denoising step of a whole U-Net of published shape, weights drawn at random: what is measured is time and memory.

ours   four branches, K and V once per generation, no padding, LoRA merged
stock  diffusers' IP-Adapter attention with the same vision tokens and one text encoder, padded to 77
naive  ours with padded prompts, K and V computed anew at every step, LoRA apart

The encoders are a layer thin: their states are given. Meant for a GPU; on a CPU `sdxl` takes 11 GB and minutes.
"""

from collections.abc import Callable
from typing import Any

import torch
import transformers
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from iy import params
from iy.bench import stock
from iy.bench.attention import OWN, PADDED, READ, WIDTHS, cut
from iy.bench.generate import touched
from iy.bench.measure import against_all, in_turns, report
from iy.diffusion import Base, Branch
from iy.diffusion.base import POOLED, TextEncoders
from iy.model import lora
from iy.model.attention import Tokens
from iy.model.conditioning import Vision

SD15 = dict(
    sample_size=64,
    block_out_channels=(320, 640, 1280, 1280),
    layers_per_block=2,
    attention_head_dim=8,
    cross_attention_dim=768,
    down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
)
SDXL = dict(
    sample_size=128,
    block_out_channels=(320, 640, 1280),
    layers_per_block=2,
    attention_head_dim=(5, 10, 20),
    cross_attention_dim=2048,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    transformer_layers_per_block=(1, 2, 10),
    use_linear_projection=True,
    addition_embed_type="text_time",
    addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=2816,
)
THIN_VAE: dict[str, Any] = dict(
    block_out_channels=(4,) * 4,
    norm_num_groups=1,
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
)
SHAPES = {"sd15": SD15, "sdxl": SDXL}
PATCHES = 16  # along each side of the reference, as ViT-H/14 sees it
POOLED_WIDTH = 1280


def run(shapes: list[str], rounds: int, batch: int = 2, device: str = "auto", dtype: str = "bfloat16") -> dict:
    """Milliseconds of a step, medians in turns, and on a GPU the peak of its memory in megabytes.

    batch 2: guidance's two halves of one picture.
    """
    from iy.device import choose_device

    where = choose_device(device)
    cases = []
    for name in shapes:
        steps = ways(SHAPES[name], batch, where, getattr(torch, dtype))
        seconds = in_turns(steps, rounds)
        cases += against_all(name, {way: round(1000 * value, 3) for way, value in seconds.items()}, "ms a step")
        if where.type == "cuda":
            cases += against_all(f"{name}, peak memory", {way: peak(step) for way, step in steps.items()}, "MB")
    return report(cases, where, dtype=dtype, batch=batch, rounds=rounds, read=READ, padded=PADDED)


def ways(shape: dict, batch: int, device: torch.device, dtype: torch.dtype) -> dict[str, Callable[[], torch.Tensor]]:
    """Functions that do one step (B, 4, h, w) on the same latents and tokens, each in its way."""
    base = built(shape, device, dtype)
    settings = params.load("sdxl").model
    with device:  # drawn there: a minute less at SDXL's size
        ours, naive, theirs = touched(base, settings), touched(base, settings), stock.with_adapter(base)
    unet: Any = ours.unet
    lora.merge(unet)
    numbers = torch.Generator(device).manual_seed(0)

    def random(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=numbers, device=device, dtype=dtype)

    side, t = shape["sample_size"], torch.tensor(500, device=device)
    x, seen = random(batch, 4, side, side), random(batch, 1 + PATCHES**2, base.vision.config.hidden_size)
    text = states(base, batch, random)
    pooled = {POOLED: (random(batch, 1, POOLED_WIDTH), torch.ones(batch, 1, dtype=torch.bool, device=device))}
    pooled = pooled if ours.pooled else {}
    with torch.no_grad():
        tokens = ours.vision.project(seen[:, 0] @ random(seen.shape[2], base.vision.config.projection_dim), seen[:, 1:])
    vision = Vision(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=device))
    with torch.no_grad():
        context = ours.context(cut(text) | pooled, vision)
    conditions = {"image_embeds": [seen[:, None]]} | (ours.added(x, context.pooled) or {})

    def quiet(step: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        return torch.no_grad()(step)

    return {
        "ours": quiet(lambda: ours.denoise(x, t, context)),
        "stock": quiet(lambda: theirs(x, t, text[OWN][0], added_cond_kwargs=conditions).sample),
        "naive": quiet(lambda: naive.denoise(x, t, naive.context(text | pooled, vision))),
    }


def states(base: Base, batch: int, random: Callable[..., torch.Tensor]) -> Tokens:
    """Padded hidden states (B, L, D) of every text branch, and which of them a prompt of `READ` tokens fills."""
    found = {}
    for name, branch in base.text.items():
        hidden = random(batch, PADDED[name], branch.width)
        real = torch.arange(PADDED[name], device=hidden.device) < READ[name]
        found[name] = hidden, real.expand(batch, -1)
    return found


def built(shape: dict, device: torch.device, dtype: torch.dtype) -> Base:
    """The U-Net of `shape`, drawn at random where it is to be, beside encoders and an autoencoder a layer thin."""
    torch.manual_seed(0)
    width = shape["cross_attention_dim"]
    with torch.device(device):
        unet = UNet2DConditionModel(**shape)
        vae = AutoencoderKL(**THIN_VAE)
        vision = transformers.CLIPVisionModelWithProjection(
            transformers.CLIPVisionConfig(
                hidden_size=1280,
                intermediate_size=8,
                num_hidden_layers=1,
                num_attention_heads=16,
                image_size=14 * PATCHES,
                patch_size=14,
                projection_dim=1024,
            )
        )
        own = transformers.CLIPTextModel(
            transformers.CLIPTextConfig(
                vocab_size=8, hidden_size=width, intermediate_size=8, num_hidden_layers=1, num_attention_heads=8
            )
        )
        others = {
            name: transformers.T5EncoderModel(
                transformers.T5Config(vocab_size=8, d_model=wide, d_kv=8, d_ff=8, num_layers=1, num_heads=1)
            )
            for name, wide in WIDTHS.items()
        }
    parts: tuple[Any, ...] = (unet, vae, vision, own, *others.values())
    for part in parts:
        part.to(dtype).requires_grad_(False).eval()
    text = {OWN: Branch(None, own, PADDED[OWN], own=True)}
    text |= {name: Branch(None, encoder, PADDED[name], own=False) for name, encoder in others.items()}
    return Base(
        unet=unet,
        vae=vae,
        scheduler=DDPMScheduler(),
        vision=vision,
        image_mean=(0.5,) * 3,
        image_std=(0.5,) * 3,
        text=TextEncoders(text),
        image_size=8 * shape["sample_size"],
        dtype=dtype,
        settings=params.load("sdxl").base,
    )


def peak(step: Callable[[], torch.Tensor]) -> float:
    torch.cuda.reset_peak_memory_stats()
    step()
    return round(torch.cuda.max_memory_allocated() / 1e6, 1)
