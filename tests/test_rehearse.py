"""A rehearsal names what would fail, in a line each, and downloads nothing."""

import shutil

import pytest

from iy import overrides, params
from iy.rehearse import checks, widths
from iy.rehearse.shapes import rehearse, room
from iy.shapes.base import shapes
from iy.shapes.memory import Held
from tests.depth import THOROUGH
from tests.tiny import tiny_base, tiny_params

CLIP = "evaluate.clip=openai/clip-vit-large-patch14"  # the tiny towers share no space


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> params.Params:
    return overrides.apply(tiny_params(tiny_base(tmp_path_factory.mktemp("base"), like="sdxl")), [CLIP])


def failing(findings) -> list[str]:
    return [str(one) for one in findings if one.state == checks.FAILS]


def test_a_profile_that_is_whole_ends_well(tiny):
    found = list(rehearse(tiny, card=80))
    assert not failing(found)
    assert {"finetune", "memory, train", "memory, evaluate"} <= {one.what for one in found}
    assert all("\n" not in str(one) for one in found)


def test_a_text_branch_of_the_wrong_width_is_named(tiny):
    settings = overrides.apply(tiny, ["base.text.clip.second=null"])
    said = failing(rehearse(settings, card=80))
    assert len(said) == 2 and "base.text.clip: gives states 32 wide, the U-Net takes 48" in said[0]
    assert "base.text.clip.second: null" in said[1]
    said = failing(rehearse(overrides.apply(tiny, ["evaluate.clip=null"]), card=80))
    assert len(said) == 1 and said[0].startswith("fails evaluate.clip: null")


def test_a_missing_tokenizer_is_named(tiny, tmp_path):
    shutil.copytree(tiny.base.unet.path, tmp_path / "base")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "base" / "text_ul2" / name).unlink()
    base = tiny.base.moved(lambda path: str(tmp_path / "base"))
    said = failing(checks.tokenizers(base))
    assert len(said) == 1 and "base.text.ul2.tokenizer" in said[0] and str(tmp_path / "base" / "text_ul2") in said[0]


def test_missing_weights_are_named(tiny, tmp_path):
    shutil.copytree(tiny.base.unet.path, tmp_path / "base")
    (tmp_path / "base" / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    said = failing(checks.weights(tiny.base.moved(lambda path: str(tmp_path / "base"))))
    assert len(said) == 1 and "base.vae" in said[0]


def test_business_with_models_for_research_is_named():
    settings = overrides.apply(
        params.load("sdxl"), ["usage=commercial", "synpairs.refiner=inswapper", "synpairs.refiner_model=x.onnx"]
    )
    said = failing(checks.licences(settings))
    assert any("fr_feature" in one for one in said) and any("inswapper" in one for one in said)
    assert not failing(checks.licences(overrides.apply(params.load("sdxl"), ["usage=research"])))


def test_what_does_not_fit_the_card_is_named_with_what_takes_most():
    held = Held("train", {"optimiser": 30e9, "gradients and activations": 90e9}, "a smaller batch")
    said = room(held, 80)
    assert said.state == checks.FAILS and "120.0 GB" in said.detail and "gradients and activations: 90.0" in said.detail
    assert room(held, 141).state == "ok"


def test_pictures_that_no_unet_can_halve_are_named(tiny):
    base = shapes(tiny.base.model_copy(update={"image_size": 70}))
    assert failing([widths.latents(base)])[0].startswith("fails base.image_size: 70")


def test_buckets_that_the_unet_does_not_take_are_named(tiny):
    wanted = "finetune.buckets={{step: {}, ratio: 2.0, resolutions: [1.0]}}".format
    base = shapes(tiny.base)
    assert not failing([widths.buckets(base, overrides.apply(tiny, [wanted(16)]))])
    [said] = failing([widths.buckets(base, overrides.apply(tiny, [wanted(8)]))])
    assert said.startswith("fails finetune.buckets.step = 8: ")


@pytest.mark.skipif(not THOROUGH, reason="a minute: IY_THOROUGH=1")
def test_sdxl_fits_a_card_and_a_batch_of_32_does_not():
    sdxl = params.load("sdxl")
    assert not failing(rehearse(sdxl, card=80))
    [said] = failing(rehearse(overrides.apply(sdxl, ["finetune.training.batch=32"]), card=80))
    assert said.startswith("fails memory, train: ") and "finetune.training.batch" in said


@pytest.mark.skipif(not THOROUGH, reason="a minute: IY_THOROUGH=1")
def test_every_stage_runs_on_random_weights(project):
    from iy.rehearse.whole import rehearse as in_earnest

    found = list(in_earnest(tiny_params(tiny_base(project / "base")), None))
    assert not failing(found) and found[-1].what == "register"
