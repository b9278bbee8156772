"""What diffusers' own common pipeline tests ask of every pipeline, asked of ours (of a GPU the hooks alone)."""

import contextlib
import inspect
import io
import re

import numpy as np
import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from diffusers import DDIMScheduler, DiffusionPipeline, EulerDiscreteScheduler, UniPCMultistepScheduler

from iy.diffusion import load_base
from iy.errors import UserError
from iy.model import ImagineYourselfPipeline
from tests.depth import depth
from tests.tiny import moved, tiny_base, tiny_params

FACE = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)
PROMPT = "a smiling man in a blue jacket"


@pytest.fixture(scope="module", params=depth(["sdxl"], ["studio", "sdxl"]))
def folder(request, tmp_path_factory):
    torch.set_num_threads(1)
    return tiny_base(tmp_path_factory.mktemp(request.param), like=request.param)


@pytest.fixture
def pipeline(folder):
    settings = tiny_params(folder)
    base = load_base(settings.base)
    made = ImagineYourselfPipeline.build(moved(base, settings.model), base)
    made.set_progress_bar_config(disable=True)
    return made


def inputs(seed=0, **more):
    return (
        dict(
            prompt=PROMPT,
            reference=FACE,
            num_inference_steps=2,
            generator=torch.Generator().manual_seed(seed),
            output_type="np",
        )
        | more
    )


def test_the_call_takes_what_text_to_image_pipelines_take():
    taken = inspect.signature(ImagineYourselfPipeline.__call__).parameters
    needed = {
        "prompt",
        "height",
        "width",
        "guidance_scale",
        "negative_prompt",
        "prompt_embeds",
        "negative_prompt_embeds",
    }
    optional = {
        "num_inference_steps",
        "num_images_per_prompt",
        "generator",
        "latents",
        "output_type",
        "return_dict",
        "callback_on_step_end",
        "callback_on_step_end_tensor_inputs",
    }
    assert needed | optional <= set(taken)
    assert all(taken[name].default is not inspect.Parameter.empty for name in optional)


def test_components_are_what_init_takes(pipeline):
    assert isinstance(pipeline, DiffusionPipeline)
    assert set(pipeline.components) == {"model", "vae", "text", "scheduler"}
    again = ImagineYourselfPipeline(**pipeline.components)
    again.set_progress_bar_config(disable=True)
    assert np.array_equal(again(**inputs()).images, pipeline(**inputs()).images)


def test_a_batch_draws_what_each_of_its_rows_draws_alone(pipeline):
    alone = pipeline(**inputs()).images
    batch = pipeline(
        **inputs(
            prompt=[PROMPT, PROMPT[: len(PROMPT) // 2], 100 * "very long"],
            reference=[FACE] * 3,
            generator=[torch.Generator().manual_seed(seed) for seed in range(3)],
        )
    ).images
    assert batch.shape[0] == 3 and np.abs(batch[0] - alone[0]).max() < 1e-4


@pytest.mark.parametrize("prompts", [1, 2])
@pytest.mark.parametrize("each", [1, 2])
def test_prompts_times_images_of_each(pipeline, prompts, each):
    asked = inputs(prompt=[PROMPT] * prompts, reference=[FACE] * prompts, num_images_per_prompt=each)
    assert len(pipeline(**asked).images) == prompts * each


def test_a_tuple_holds_what_the_dictionary_does(pipeline):
    assert np.array_equal(pipeline(**inputs(), return_dict=False)[0], pipeline(**inputs()).images)


def test_guidance_keeps_shapes(pipeline):
    assert pipeline(**inputs(guidance_scale=1.0)).images.shape == pipeline(**inputs(guidance_scale=7.5)).images.shape


def test_the_dtype_changes_with_to_and_when_loading(pipeline, tmp_path):
    before = pipeline(**inputs()).images
    pipeline.save_pretrained(tmp_path / "bundle")
    with pytest.raises(UserError, match="holds no pickles"):
        pipeline.save_pretrained(tmp_path / "pickled", safe_serialization=False)
    loaded = ImagineYourselfPipeline.from_pretrained(tmp_path / "bundle", torch_dtype=torch.bfloat16)
    loaded.set_progress_bar_config(disable=True)
    for made in (loaded, pipeline.to(torch.bfloat16)):
        assert {part.dtype for part in made.components.values() if hasattr(part, "dtype")} == {torch.bfloat16}
        assert np.abs(made(**inputs()).images - before).mean() < 0.05


def test_the_progress_bar_runs_to_its_end_and_can_be_silent(pipeline):
    pipeline.set_progress_bar_config(disable=False)
    with io.StringIO() as err, contextlib.redirect_stderr(err):
        pipeline(**inputs(num_inference_steps=3))
        said = err.getvalue()
    total = re.search(r"/(\d+) ", said).group(1)
    assert total == "3" and "3/3" in said
    pipeline.set_progress_bar_config(disable=True)
    with io.StringIO() as err, contextlib.redirect_stderr(err):
        pipeline(**inputs())
        assert err.getvalue() == ""


@pytest.mark.parametrize("scheduler", [DDIMScheduler, EulerDiscreteScheduler, UniPCMultistepScheduler])
def test_other_schedulers_draw(pipeline, scheduler):
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
    image = pipeline(**inputs(num_inference_steps=3)).images
    assert np.isfinite(image).all() and image.std() > 0


def test_callbacks_are_given_what_they_ask_for_change_it_and_can_stop(pipeline):
    steps = []

    def zero(pipe, step, t, given):
        assert set(given) == {"latents"}
        steps.append(step)
        return {"latents": torch.zeros_like(given["latents"])} if step == 2 else given

    last = pipeline(
        **inputs(num_inference_steps=3, output_type="latent"),
        callback_on_step_end=zero,
        callback_on_step_end_tensor_inputs=pipeline._callback_tensor_inputs,
    ).images
    assert steps == [0, 1, 2] and not last.any()
    with pytest.raises(UserError, match=r"'unknown' is not among \['latents'\]"):
        pipeline(**inputs(), callback_on_step_end=zero, callback_on_step_end_tensor_inputs=["unknown"])

    def stop(pipe, step, t, given):
        steps.append(step)
        pipe._interrupt = True
        return given

    steps.clear()
    pipeline(**inputs(num_inference_steps=3), callback_on_step_end=stop)
    assert steps == [0]
    assert np.isfinite(pipeline(**inputs()).images).all(), "the next call is not stopped"


class Asked(ModelHook):
    def __init__(self, name, order):
        self.name, self.order, self.execution_device = name, order, torch.device("cpu")

    def pre_forward(self, module, *args, **kwargs):
        if self.order[-1:] != [self.name]:
            self.order.append(self.name)
        return args, kwargs


def test_each_part_is_called_for_before_it_computes_in_the_order_of_offloading(pipeline):
    """What moves a part to the GPU is its hook: one that is not called would leave it on the CPU."""
    order, before = [], pipeline(**inputs()).images
    for name in pipeline.model_cpu_offload_seq.split("->"):
        add_hook_to_module(getattr(pipeline, name), Asked(name, order))
    assert np.array_equal(pipeline(**inputs()).images, before)
    assert order == ["text", "model", "vae"]


def test_offloaded_parts_draw_the_same_image(pipeline):
    """diffusers' own hooks, with the CPU in the GPU's place."""
    before = pipeline(**inputs()).images
    pipeline.enable_model_cpu_offload(device="cpu")
    for _ in range(2):
        assert np.array_equal(pipeline(**inputs()).images, before)
