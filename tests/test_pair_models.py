"""Models that draw pairs: what does not fit is one sentence, and what is changed has another name."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from iy.errors import UserError
from iy.synpairs import models
from tests.pair_models import adapter, refused, settings


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"start": "reference"}, "synpairs.generator .* set synpairs.start: text"),
        (
            {"generator": {"class": "UNet2DModel", "path": "x"}},
            "synpairs.generator.class: UNet2DModel is not a text-to-image",
        ),
        (
            {"generator": {"class": "StableDiffusionImg2ImgPipeline", "path": "x"}},
            "Img2ImgPipeline is not a text-to-image",
        ),
        (
            {"generator": {"class": "StableDiffusionControlNetPipeline", "path": "x"}},
            "ControlNetPipeline is not a text-to-image",
        ),
        (
            {"generator": {"class": "FluxPipeline", "path": "x"}},
            "generator: diffusers does not put an IP-Adapter on FluxPipeline",
        ),
        (
            {"generator": {"class": "WuerstchenCombinedPipeline", "path": "x"}},
            "generator.class: Wuerst.* takes no guidance_scale",
        ),
        (
            {
                "generator": {"class": "StableDiffusionPipeline", "path": "no/where/at/all"},
                "refiner": "none",
                "refiner_model": None,
            },
            "synpairs.generator: cannot open no/where/at/all as StableDiffusionPipeline",
        ),
        (
            {"generator": None, "start": "reference"},
            "refiner_model.pipeline: null means the generator, and there is none",
        ),
        ({"refiner_model": None}, "synpairs.refiner_model: ip_adapter needs path"),
        ({"refiner": "none"}, "synpairs.refiner: none takes no model"),
        ({"refiner": "bundle"}, "synpairs.refiner: bundle takes no model"),
        ({"strength": 0.2}, "synpairs.strength: 0.2 of 4 steps is less than one"),
    ],
)
def test_settings_that_do_not_go_together_are_one_sentence(published, changes, says):
    refused(settings(*published, **changes), says)


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"weights": "adapter.bin"}, "refiner_model.weights: adapter.bin is not a safetensors file"),
        ({"weights": "other.safetensors"}, "synpairs.refiner_model: cannot put .*other.safetensors"),
        ({"image_encoder": None}, "synpairs.refiner_model.image_encoder: the pipeline has none"),
        ({"image_encoder": "eyes"}, "synpairs.refiner_model: cannot put .*eyes"),
    ],
)
def test_an_adapter_that_is_not_there_is_one_sentence(published, changes, says):
    refused(settings(*published, refiner_model=adapter(published[0], **changes)), says)


def test_an_adapter_of_another_net_is_one_sentence(published, tmp_path):
    folder, cls = published
    shutil.copytree(folder / "adapter", tmp_path / "adapter")
    file = tmp_path / "adapter" / "models" / "adapter.safetensors"
    kept = load_file(file)
    save_file({name: value[..., :5].contiguous() if "to_k_ip" in name else value for name, value in kept.items()}, file)
    refused(settings(folder, cls, refiner_model=adapter(tmp_path)), "synpairs.refiner_model: cannot put")


@pytest.mark.parametrize("part, file", [("unet", "diffusion_pytorch_model"), ("text_encoder", "model")])
def test_a_pickle_is_not_opened(published, tmp_path, part, file):
    folder, cls = published
    shutil.copytree(folder / "pipeline", tmp_path / "pipeline")
    safe = tmp_path / "pipeline" / part / f"{file}.safetensors"
    torch.save(load_file(safe), safe.with_name(f"{'pytorch_model' if file == 'model' else file}.bin"))
    safe.unlink()
    drawing = settings(tmp_path, cls, refiner="none", refiner_model=None)
    refused(drawing, f"synpairs.generator: cannot open .*{file}.safetensors")


def test_an_image_encoder_that_is_a_pickle_is_not_opened(published, tmp_path):
    folder, cls = published
    shutil.copytree(folder / "adapter", tmp_path / "adapter")
    safe = tmp_path / "adapter" / "models" / "image_encoder" / "model.safetensors"
    torch.save(load_file(safe), safe.with_name("pytorch_model.bin"))
    safe.unlink()
    refused(
        settings(folder, cls, refiner_model=adapter(tmp_path)), "synpairs.refiner_model: cannot put .*model.safetensors"
    )


@pytest.mark.parametrize("published", ["studio"], indirect=True)
def test_a_folder_of_another_class_is_one_sentence(published):
    says = "has no t.*_2, which StableDiffusionXLPipeline needs: it was saved as StableDiffusionPipeline"
    refused(settings(published[0], "StableDiffusionXLPipeline"), says)


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"refiner_model": {"path": "x"}}, "key 'synpairs.refiner_model.weights' is missing"),
        ({"refiner_model": adapter(Path("x"), scael=1)}, "'synpairs.refiner_model.scael': did you mean 'scale'"),
        ({"generator": {"class": "A", "path": "x", "pth": "y"}}, "'synpairs.generator.pth': did you mean 'path'"),
    ],
)
def test_mistakes_inside_a_model_are_told_by_their_key(changes, says):
    with pytest.raises(UserError, match=says):
        settings(Path("x"), "StableDiffusionPipeline", **changes)


def test_what_changed_in_a_folder_changes_the_name_of_what_drew(published, tmp_path):
    folder, cls = published
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    chosen = settings(tmp_path, cls)
    names = [models.names_of(chosen)]
    in_adapter = ("adapter.safetensors", "image_encoder/config.json")
    for file in ("pipeline/unet/config.json", *(f"adapter/models/{name}" for name in in_adapter)):
        with open(tmp_path / file, "ab") as opened:
            opened.write(b" ")
        names.append(models.names_of(chosen))
    assert len(set(names)) == 4
    hub = settings(
        tmp_path, cls, generator={"class": cls, "path": "somebody/model"}, refiner="none", refiner_model=None
    )
    assert models.names_of(hub) == f"{cls}@somebody/model"
