"""The full-size models, as published, without their weights: what they are made of and what is added and trained."""

from pathlib import Path
from types import SimpleNamespace

import diffusers
import pytest
import torch
import transformers

from iy import params
from iy.diffusion import Base, Branch, TextEncoders
from iy.model import Personaliser
from tests import published


def count(module: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def clip_text(cls, config: dict) -> torch.nn.Module:
    return cls(transformers.CLIPTextConfig(**config))


@pytest.fixture(scope="module")
def sdxl():
    """profiles/sdxl.yaml's parts on the meta device: shapes without numbers."""
    settings = params.parse({"profile": "sdxl", **params.read_yaml(Path("profiles/sdxl.yaml"))}, "profiles/sdxl.yaml")
    with torch.device("meta"):
        second = Branch(None, clip_text(transformers.CLIPTextModelWithProjection, published.CLIP_G), 77, own=False)
        t5 = {
            name: transformers.T5EncoderModel(transformers.T5Config(**config))
            for name, config in (("ul2", published.UL2), ("byt5", published.BYT5_LARGE))
        }
        text = {
            "clip": Branch(None, clip_text(transformers.CLIPTextModel, published.CLIP_L), 77, True, second),
            **{name: Branch(None, encoder, 256, False) for name, encoder in t5.items()},
        }
        base = Base(
            unet=diffusers.UNet2DConditionModel(**published.SDXL).requires_grad_(False),
            scheduler=None,
            vae=SimpleNamespace(config=SimpleNamespace(block_out_channels=(128, 256, 512, 512))),
            vision=transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**published.VIT_H)),
            image_mean=(0.5,) * 3,
            image_std=(0.5,) * 3,
            text=TextEncoders(text),
            image_size=settings.base.image_size,
            dtype=torch.float32,
            settings=settings.base,
        )
        return base, Personaliser(base, settings.model)


@pytest.mark.parametrize("name", list(published.UNETS))
def test_the_unets_are_the_published_ones(name):
    config, tensors, parameters = published.UNETS[name]
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(**config)
    assert (len(unet.state_dict()), count(unet)) == (tensors, parameters)


def test_sdxls_parts_have_the_published_shapes(sdxl):
    base, _ = sdxl
    shapes = {name: tuple(value.shape) for name, value in base.unet.state_dict().items()}
    assert published.SDXL_NAMES.items() <= shapes.items()
    assert base.text["clip"].width == published.SDXL["cross_attention_dim"] == 2048
    assert count(base.text["clip"].encoder) == 123_060_480 and count(base.text["clip"].second.encoder) == 694_659_840
    assert count(base.vision) == pytest.approx(632e6, rel=1e-3)
    assert base.text["ul2"].width == 4096 and base.text["byt5"].width == 1536


def test_every_published_tensor_of_sdxl_stays_in_the_personal_model(sdxl):
    """Frozen, under its name (peft puts what LoRA adapts one level deeper), and shared rather than copied."""
    base, model = sdxl
    inside = {name.replace(".base_layer", ""): weight for name, weight in model.unet.named_parameters()}
    for name, weight in base.unet.named_parameters():
        assert inside[name] is weight and not weight.requires_grad


def test_what_is_trained_on_sdxl_is_what_the_method_says(sdxl):
    """The tower, its projection; per cross-attention layer K, V, one matrix per head and α; LoRA of rank r."""
    base, model = sdxl
    rank = model.settings.lora_rank
    layers = [(640, 10)] * 10 + [(1280, 20)] * 60
    widths = {"vision": 2048, "ul2": 4096, "byt5": 1536}
    added = sum(
        2 * width * channels + channels * channels // heads for channels, heads in layers for width in widths.values()
    ) + 4 * len(layers)
    own = sum(rank * (4 * 2 * c) + rank * (2 * 2 * c + 2 * (2048 + c)) for c, _ in layers)
    projection = (1024 + 1) * 2048 + (1280 + 1) * 2048 + 2 * 2048
    trained = sum(weight.numel() for weight in model.trainable_parameters())
    assert len(model.cross_attentions()) == 70
    assert trained == count(base.vision) + projection + added + own
