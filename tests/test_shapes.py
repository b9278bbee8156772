"""Counting on shapes counts what the real thing does: operations, bytes that live at once, dtypes under autocast."""

from pathlib import Path

import diffusers
import pytest
import torch
import transformers
from torch import nn

from iy import params
from iy.shapes import memory, published, work
from iy.shapes.base import drawn, shapes
from iy.shapes.meter import GpuKernels, Meter
from tests.tiny import tiny_base, tiny_params

META = torch.device("meta")


def test_operations_are_two_for_each_multiplication_and_addition():
    x, layer = torch.empty(8, 16, device=META), nn.Linear(16, 4, device=META)
    with Meter() as forward:
        layer(x)
    with Meter() as both:
        layer(x).sum().backward()
    assert forward.flops == 2 * 8 * 16 * 4
    assert both.flops == 2 * forward.flops, "the gradient of the weight; x needs none"


def test_the_peak_is_of_what_lives_at_once():
    x, megabyte = torch.empty(256, 1024, device=META), 2**20
    with Meter() as meter:
        y = x + 1
        for _ in range(5):
            y = y + 1  # the old one is freed when the new one is there
        assert (meter.now, meter.peak) == (megabyte, 2 * megabyte)
        kept = [y * 2 for _ in range(3)]
        assert meter.now == 4 * megabyte
        del kept
    assert meter.now == megabyte


def test_views_of_weights_are_no_new_memory():
    weight = torch.empty(512, 512, device=META)
    with Meter() as meter:
        weight.t()[1:]
    assert meter.peak == 0


def test_what_backward_needs_is_kept_until_then():
    weight = nn.Parameter(torch.empty(256, 256, device=META))
    with Meter() as meter:
        loss = (weight.exp().exp()).sum()  # exp keeps its result
        kept = meter.now
        loss.backward()
    megabytes = 256 * 256 * 4
    assert kept == 2 * megabytes + 4
    assert weight.grad is not None and meter.now == megabytes + 4, "the gradient and the loss"


def test_products_are_narrow_and_normalisations_wide_as_under_autocast():
    layer, x = nn.Linear(8, 8, device=META), torch.empty(2, 8, device=META)
    with GpuKernels(torch.bfloat16) as kernels:
        y = layer(x)
        assert y.dtype == torch.bfloat16 and nn.functional.layer_norm(y, (8,)).dtype == torch.float32
        layer(y)
        assert len(kernels.copies) == 2, "weight and bias are narrowed once"
    with GpuKernels(None):
        assert layer(x).dtype == torch.float32


def test_attention_keeps_no_matrix_of_scores():
    q = torch.empty(1, 4, 1000, 16, device=META, requires_grad=True)
    with Meter() as meter, GpuKernels(None):
        torch.nn.functional.scaled_dot_product_attention(q, q, q).sum().backward()
    scores = 4 * 1000 * 1000 * 4
    assert meter.peak < scores / 4
    assert meter.flops == pytest.approx(3.5 * 4 * 4 * 1000 * 1000 * 16, rel=0.01), "backward computes them again"


@pytest.mark.parametrize("like", ["studio", "sdxl"])
def test_a_whole_step_on_shapes_is_the_real_one(tmp_path, like):
    """Trained weights as the model says, and a smaller batch holds less; real weights in the very same shapes."""
    settings = tiny_params(tiny_base(tmp_path, like=like))
    base, real = shapes(settings.base), drawn(settings.base, torch.device("cpu"))
    lengths = memory.longest(base)
    step, held = memory.of_profile(base, settings, lengths, checkpointing=False)
    assert {one.stage for one in held} == {"encode", "train", "synpairs", "evaluate"}
    model = work.Personaliser(real, settings.model)
    assert step.trained == sum(one.numel() for one in model.trainable_parameters())
    for part in ("unet", "vae", "vision"):
        found = {name: weight.shape for name, weight in getattr(real, part).named_parameters()}
        assert found == {name: weight.shape for name, weight in getattr(base, part).named_parameters()}
    short = dict.fromkeys(lengths, 2)  # the U-Net's own activations are then most of it
    plain, saved = (work.training_step(base, settings, short, checkpointing=on) for on in (False, True))
    assert saved.working < plain.working and saved.flops > plain.flops, "activations are computed again"


@pytest.mark.parametrize("key", list(published.table()["parts"]))
def test_published_parts_have_as_many_weights_as_their_files(key):
    found = published.table()["parts"][key]
    config = found["config"]
    kind = {
        "unet": diffusers.UNet2DConditionModel,
        "sdxl-vae-fp16-fix": diffusers.AutoencoderKL,
        "text_encoder": transformers.CLIPTextModel,
        "text_encoder_2": transformers.CLIPTextModelWithProjection,
        "CLIP-ViT-H-14-laion2B-s32B-b79K": transformers.CLIPVisionModelWithProjection,
        "ul2": transformers.T5EncoderModel,
        "byt5-large": transformers.T5EncoderModel,
        "clip-vit-large-patch14": transformers.CLIPModel,
    }.get(Path(key).name)
    if kind is None:
        assert key.endswith("/scheduler") and diffusers.DDPMScheduler(**config).config.num_train_timesteps == 1000
        return
    with META:
        made = kind.from_config(config) if "diffusers" in kind.__module__ else kind(kind.config_class(**config))
    assert sum(weight.numel() for weight in made.parameters()) == found["parameters"]


def test_every_part_of_the_sdxl_profile_is_known():
    settings = params.load("sdxl")
    for key, part in settings.base.parts().items():
        assert published.configuration(part, key) and published.licence(part.path)
