"""Generators and refiners beside the bundle: diffusers' own classes on tiny random weights, as they are published."""

from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file

from iy import params
from iy.errors import UserError
from iy.synpairs import models
from iy.synpairs.generators import load_generator
from iy.synpairs.plan import Plan
from iy.synpairs.refiners import load_refiner
from iy.synpairs.rewriters import Rewrite
from tests import tiny

CLASSES = {"studio": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline"}


def publish(folder: Path, like: str) -> tuple[Path, str]:
    """A text-to-image pipeline as diffusers saves it, and an IP-Adapter for it with its own image encoder."""
    save_pipeline(folder / "pipeline", like)
    save_adapter(folder / "adapter" / "models", like)
    return folder, CLASSES[like]


def save_pipeline(folder: Path, like: str) -> None:
    torch.manual_seed(0)
    parts, tokenizer = tiny.encoders(), tiny.tokenizers()["clip"]
    tokenizer.model_max_length = 77
    encoder = transformers.CLIPTextModel(parts["text_clip"].config)
    made = dict(vae=tiny.vae(), unet=tiny.unet(like), text_encoder=encoder, tokenizer=tokenizer)
    made["scheduler"] = diffusers.DDIMScheduler(steps_offset=1, clip_sample=False)
    if like == "sdxl":
        second = tiny.clip_text(tiny.SECOND, 20)
        pipeline = diffusers.StableDiffusionXLPipeline(**made, text_encoder_2=second, tokenizer_2=tokenizer)
    else:
        pipeline = diffusers.StableDiffusionPipeline(
            **made, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    pipeline.save_pretrained(folder)


def save_adapter(folder: Path, like: str) -> None:
    """In the published layout: the numbers count every attention layer, self-attention included."""
    torch.manual_seed(1)
    unet, encoder = tiny.unet(like), tiny.vision()
    cross, seen = unet.config.cross_attention_dim, encoder.config.projection_dim
    found = {"image_proj.proj.weight": torch.randn(4 * cross, seen), "image_proj.proj.bias": torch.zeros(4 * cross)}
    found |= {"image_proj.norm.weight": torch.ones(cross), "image_proj.norm.bias": torch.zeros(cross)}
    modules = dict(unet.named_modules())
    for number, name in enumerate(unet.attn_processors):
        if "attn2" in name:
            wide = modules[name.removesuffix(".processor")].to_q.out_features
            for part in "kv":
                found[f"ip_adapter.{number}.to_{part}_ip.weight"] = torch.randn(wide, cross)
    encoder.save_pretrained(folder / "image_encoder")
    save_file(found, folder / "adapter.safetensors")


def settings(folder: Path, cls: str, **changes) -> params.Params:
    """Drawn by the pipeline, refined by the adapter on it, but for `changes` of the synpairs section."""
    value = tiny.tiny_settings(Path("nowhere"))
    value["synpairs"] |= {
        "generator": {"class": cls, "path": str(folder / "pipeline")},
        "start": "text",
        "refiner": "ip_adapter",
        "refiner_model": adapter(folder),
        "steps": 4,
        "passes": 2,
        "batch": 2,
    }
    value["synpairs"] |= changes
    return params.parse(value, "test")


def adapter(folder: Path, **changes) -> dict:
    published = {"path": str(folder / "adapter"), "weights": "models/adapter.safetensors"}
    return published | {"image_encoder": "models/image_encoder", "scale": 1.0, "pipeline": None} | changes


def planned(*texts: str) -> list[Plan]:
    return [Plan({"embedding": []}, i, 7 + i, Rewrite(text, [], None)) for i, text in enumerate(texts)]


def crops(count: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), np.uint8))


def load(chosen: params.Params, analyser=None):
    models.require(chosen)
    named = chosen.synpairs.generator is not None  # else stage 1's bundle draws, and a refiner is asked for alone
    generator = load_generator(chosen, None, "cpu") if named else None
    return generator, load_refiner(chosen, None, generator, analyser, "cpu")


def same(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def furthest(one, other) -> int:
    return max(int(np.abs(a.astype(int) - b).max()) for a, b in zip(one, other, strict=True))


PLANS = planned("a calm man", "a woman, laughing", "an old man, facing left")


def refused(chosen: params.Params, says: str, analyser=None) -> None:
    with pytest.raises(UserError, match=says) as caught:
        load(chosen, analyser)
    assert "\n" not in str(caught.value)
