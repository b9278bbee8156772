"""Opening a bundle with the keywords that people type: each is held to, or refused in one sentence."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from diffusers import AutoencoderTiny, DiffusionPipeline, EulerDiscreteScheduler, ModelMixin, SchedulerMixin

from iy.errors import UserError
from iy.model import ImagineYourselfPipeline
from tests.drawing import asked, built, drawn, quiet
from tests.tiny import tiny_base


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    torch.set_num_threads(1)
    return built(tiny_base(tmp_path_factory.mktemp("base")))


@pytest.fixture(scope="module")
def saved(pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "bundle"
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def expected(pipeline):
    return drawn(pipeline)


def opened(folder, *where, **more):
    return quiet(ImagineYourselfPipeline.from_pretrained(folder, *where, **more))


TYPED = [
    {},
    {"use_safetensors": True, "variant": None, "revision": None, "token": None, "cache_dir": None},
    {"safety_checker": None, "requires_safety_checker": False, "feature_extractor": None, "image_encoder": None},
    {"local_files_only": True, "force_download": False, "token": "hf_secret"},
    {"low_cpu_mem_usage": True, "device_map": "cpu"},
    {"low_cpu_mem_usage": False, "dtype": "auto"},
    {"device_map": {"": "cpu"}, "torch_dtype": torch.float32},
    {"device_map": torch.device("cpu"), "dtype": "float32", "trust_remote_code": False, "custom_pipeline": None},
]


@pytest.mark.parametrize("keywords", TYPED)
def test_what_people_type_opens_the_same_pipeline(saved, expected, keywords):
    assert np.array_equal(drawn(opened(saved, **keywords)), expected)


@pytest.mark.parametrize("form", [str, Path, lambda path: f"{path}/", lambda path: path / "." / ""])
def test_a_folder_may_be_named_in_any_form(saved, expected, form):
    again = opened(form(saved))
    assert np.array_equal(drawn(again), expected) and Path(again.name_or_path) == saved


def test_a_relative_folder_opens(saved, expected, monkeypatch):
    monkeypatch.chdir(saved.parent)
    assert np.array_equal(drawn(opened("bundle/")), expected)


@pytest.mark.parametrize("name", ["torch_dtype", "dtype"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16", "torch.bfloat16"])
def test_the_dtype_may_be_asked_for_by_either_name(saved, name, dtype):
    again = opened(saved, **{name: dtype})
    assert {part.dtype for part in again.components.values() if hasattr(part, "dtype")} == {torch.bfloat16}


def test_parts_may_have_dtypes_of_their_own_and_draw_together(saved, expected):
    again = opened(saved, torch_dtype={"text": torch.bfloat16, "vae": torch.float64, "default": torch.float32})
    assert (
        again.text.dtype == torch.bfloat16 and again.vae.dtype == torch.float64 and again.model.dtype == torch.float32
    )
    assert np.abs(drawn(again) - expected).max() < 0.1
    assert opened(saved, torch_dtype={"text": torch.bfloat16}).model.dtype == torch.float32


def test_parts_may_be_brought_along(saved, pipeline, expected):
    scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    small = AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
    )
    again = opened(saved, scheduler=scheduler, vae=small)
    assert again.scheduler is scheduler and again.vae is small and again.config["vae"][1] == "AutoencoderTiny"
    assert drawn(again).shape == expected.shape


def test_text_encoders_may_be_left_out(saved, pipeline, expected):
    words, blank = pipeline.encode_prompt(asked()["prompt"]), pipeline.encode_negative(None)
    again = opened(saved, text=None)
    given = {"prompt": None, "prompt_embeds": words, "negative_prompt_embeds": blank}
    assert again.text is None and np.abs(drawn(again, **given) - expected).max() < 1e-5


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"variant": "fp16"}, "variant='fp16' cannot hold: .* torch_dtype=torch.float16"),
        ({"use_safetensors": False}, "holds no pickles"),
        ({"revision": "main"}, "has no revisions"),
        ({"subfolder": "vae"}, "name the bundle's own folder"),
        ({"device_map": "balanced"}, r"device_map='balanced' cannot hold: .* enable_model_cpu_offload\(\)"),
        ({"device_map": {"model": "cuda", "vae": "cpu"}}, "cannot hold"),
        ({"device": "cpu", "device_map": "cuda"}, "give one of them"),
        ({"max_memory": {0: "1GB"}}, "lie on one device"),
        ({"safety_checker": object()}, "has no such part"),
        ({"text_encoder": None, "unet": object()}, "the U-Net is a part of model"),
        ({"scheduler": None}, "cannot draw without it"),
        ({"quantization_config": object()}, "base.text.<name>.int8"),
        ({"custom_pipeline": "lpw"}, "holds no code"),
        ({"trust_remote_code": True}, "holds no code"),
        ({"torch_dtype": torch.int8}, "not one that models compute in"),
        ({"torch_dtype": "fp16"}, "not one that models compute in"),
        ({"torch_dtype": {"unet": torch.float16}}, "there is no part 'unet'; name model, vae, text or default"),
        ({"torch_dypte": torch.float16}, "is 'torch_dtype' meant"),
        ({"colour": "red"}, "does not know 'colour': leave it out"),
    ],
)
def test_what_cannot_hold_is_one_sentence(saved, keywords, said):
    with pytest.raises(UserError, match=said):
        opened(saved, **keywords)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("keywords", [{"device_map": "cuda"}, {"device": "cuda:0"}, {"device_map": 0}])
def test_a_gpu_that_is_not_there_is_said_before_anything_is_read(saved, keywords, monkeypatch):
    monkeypatch.setattr("iy.model.bundle.open_bundle", lambda *_: pytest.fail("read"))
    with pytest.raises(UserError, match="no GPU that PyTorch can use was found"):
        opened(saved, **keywords)


def test_an_automatic_device_is_the_gpu_where_there_is_one(saved):
    assert opened(saved, device_map="auto").device.type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="org/bundle is not a bundle: there is no such folder"):
        ImagineYourselfPipeline.from_pretrained("org/bundle")


@pytest.fixture
def on_a_hub(saved, tmp_path):
    """A copy of the bundle whose U-Net lies on a hub (which no test can reach)."""
    config = json.loads((saved / "config.json").read_text())
    config["base"]["unet"]["path"] = "some/model"
    (tmp_path / "bundle").mkdir()
    for path in saved.iterdir():
        os.symlink(path, tmp_path / "bundle" / path.name)
    (tmp_path / "bundle" / "config.json").unlink()
    (tmp_path / "bundle" / "config.json").write_text(json.dumps(config))
    return tmp_path / "bundle"


def test_a_part_from_the_hubs_cache_is_found_in_the_cache_that_is_named(on_a_hub, saved, expected, tmp_path):
    base = json.loads((saved / "config.json").read_text())["base"]["unet"]["path"]
    cached, commit = tmp_path / "cache" / "models--some--model", "0" * 40
    (cached / "snapshots" / commit).mkdir(parents=True)
    os.symlink(Path(base) / "unet", cached / "snapshots" / commit / "unet")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    asked_for = {"local_files_only": True, "cache_dir": tmp_path / "cache"}
    assert np.array_equal(drawn(opened(on_a_hub, **asked_for)), expected)
    with pytest.raises(UserError, match="base.unet: cannot open UNet2DConditionModel at some/model"):
        opened(on_a_hub, local_files_only=True, cache_dir=tmp_path / "empty")


def test_the_hubs_keywords_reach_every_part(saved, monkeypatch):
    seen = {}

    def watched(kind):
        real = kind.from_pretrained.__func__

        def reading(cls, *args, **options):
            seen[cls.__name__] = tuple(options.get(name) for name in ("token", "local_files_only", "cache_dir"))
            return real(cls, *args, **options)

        monkeypatch.setattr(kind, "from_pretrained", classmethod(reading))

    for kind in (ModelMixin, SchedulerMixin, transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase):
        watched(kind)
    opened(saved, token="hf_secret", local_files_only=True, cache_dir="/nowhere")
    assert {"UNet2DConditionModel", "AutoencoderKL", "DDPMScheduler", "T5EncoderModel", "ByT5Tokenizer"} <= set(seen)
    assert all(options == ("hf_secret", True, "/nowhere") for options in seen.values())


def test_low_cpu_mem_usage_reaches_the_parts_that_can_tell(saved, monkeypatch):
    seen, real = [], ModelMixin.from_pretrained.__func__

    def reading(cls, *args, **options):
        seen.append(options["low_cpu_mem_usage"])
        return real(cls, *args, **options)

    monkeypatch.setattr(ModelMixin, "from_pretrained", classmethod(reading))
    opened(saved, low_cpu_mem_usage=False)
    assert seen == [False, False], "U-Net and VAE"


def test_a_bundle_is_saved_with_the_keywords_that_people_type(pipeline, saved, tmp_path):
    pipeline.save_pretrained(
        save_directory=tmp_path / "again", safe_serialization=True, variant=None, max_shard_size="2GB"
    )
    for file in ("adapter.safetensors", "config.json", "vision/model.safetensors"):
        assert (tmp_path / "again" / file).read_bytes() == (saved / file).read_bytes()
    for keywords, said in (
        ({"variant": "fp16"}, "give fp16=True"),
        ({"push_to_hub": True}, "upload that"),
        ({"safe_serialization": False}, "holds no pickles"),
    ):
        with pytest.raises(UserError, match=said):
            pipeline.save_pretrained(tmp_path / "refused", **keywords)
    assert not (tmp_path / "refused").exists()


def test_diffusers_own_door_says_that_a_bundle_is_not_one_of_its_pipelines(saved):
    """`DiffusionPipeline` looks its classes up in diffusers; the class here must be named."""
    with pytest.raises(OSError, match="no file named model_index.json"):
        DiffusionPipeline.from_pretrained(saved)
