"""The base is opened by named classes, and its encoders keep to the shapes and ranges they state."""

import shutil

import numpy as np
import pytest
import torch

from iy import diffusion, params
from iy.errors import UserError
from tests.tiny import tiny_base, tiny_settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.set_num_threads(1)
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def base(folder):
    return diffusion.load_base(params.parse(tiny_settings(folder), "test").base)


def test_every_part_is_of_the_named_class_and_frozen(base):
    kinds = {name: type(branch.encoder).__name__ for name, branch in base.text.items()}
    assert kinds == {"clip": "CLIPTextModelWithProjection", "ul2": "T5EncoderModel", "byt5": "T5EncoderModel"}
    assert base.own == "clip"
    for part in (base.unet, base.vae, base.vision, base.text):
        assert not part.training and not any(parameter.requires_grad for parameter in part.parameters())


def test_latents_have_the_stated_shape_and_scale(base):
    pixels = torch.rand(2, 3, 64, 64) * 2 - 1
    latents = diffusion.encode_images(base, pixels)
    assert latents.shape == (2, *base.latent_shape)
    unscaled = base.vae.encode(pixels).latent_dist.mode()
    torch.testing.assert_close(latents, unscaled * base.vae.config.scaling_factor)
    torch.testing.assert_close(diffusion.decode_latents(base, latents), base.vae.decode(unscaled).sample.clamp(-1, 1))


def test_text_states_do_not_depend_on_padding(base):
    alone = diffusion.encode_text(base, ["a calm woman"])
    beside = diffusion.encode_text(base, ["a calm woman", "an old man with a very long description, laughing loudly"])
    fixed = diffusion.text_states(base.text, ["a calm woman"], fixed_length=True)
    for name, (hidden, mask) in alone.items():
        assert mask.all() and hidden.shape[2] == base.text[name].width
        length = mask.shape[1]
        for other, other_mask in (beside[name], fixed[name]):
            assert other_mask[0].sum() == length
            assert (other[0, :length] - hidden[0]).abs().max() <= 1e-6
        assert fixed[name][1].shape[1] == base.text[name].max_length


def test_what_a_tokenizer_cuts_off_is_said(base, caplog):
    diffusion.encode_text(base, ["a" * 80 + " zebra"])
    assert "branch clip reads 77 tokens" in caplog.text and "zebra" in caplog.text


def test_pixels_span_minus_one_to_one():
    pixels = diffusion.to_pixels([np.array([[[0, 127, 255]]], np.uint8)])
    assert pixels.shape == (1, 3, 1, 1) and pixels.min() == -1 and pixels.max() == 1


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda base: base["unet"].update({"class": "UNet9000"}),
            "base.unet: diffusers has no loadable class 'UNet9000'",
        ),
        (lambda base: base["vae"].update(subfolder="nowhere"), "base.vae: cannot open AutoencoderKL"),
        (lambda base: base["text"]["ul2"].update(own=True), "base.text: exactly one branch must have `own: true`"),
    ],
)
def test_a_base_that_cannot_be_opened_is_one_sentence(folder, change, message):
    settings = tiny_settings(folder)
    change(settings["base"])
    with pytest.raises(UserError, match="(?s)^" + message.replace("(", r"\(")):
        diffusion.load_base(params.parse(settings, "test").base)


@pytest.mark.parametrize("part", ["unet", "text_clip", "vision"])
@pytest.mark.parametrize(
    ("left", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n", "run git lfs pull"),
        (b"", "cannot open"),
        (None, "cannot open"),  # the first half
    ],
)
def test_weights_that_did_not_come_whole_are_one_sentence(part, left, says, folder, tmp_path):
    base = shutil.copytree(folder, tmp_path / "base")
    file = next((base / part).glob("*.safetensors"))
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if left is None else left)
    with pytest.raises(UserError, match=rf"^base.{part.replace('_', '.')}: .*{says}"):
        diffusion.load_base(params.parse(tiny_settings(base), "test").base)
