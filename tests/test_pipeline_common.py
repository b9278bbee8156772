"""What diffusers' own common pipeline tests ask of every pipeline class, asked of ours, test by test.

Those tests (tests/pipelines/test_pipelines_common.py and tests/pipelines/testing_utils/, as in August 2026) are in
neither the wheel nor the source archive that diffusers publishes, so that they cannot be run from the installed
version. `ASKED` names each of them with the test here that asks the same, or with the reason why what it takes for
granted does not hold.
"""

import copy
import importlib
import inspect
import pickle

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler
from diffusers.pipelines.pipeline_utils import StableDiffusionMixin
from PIL import Image

from iy.diffusion import to_pixels, vae_encode
from iy.errors import UserError
from iy.model import ImagineYourselfPipeline
from tests.depth import depth
from tests.drawing import FACE, PROMPT, built, drawn, quiet
from tests.tiny import tiny_base

HABITS, DRAWS = "tests.test_diffusers_habits", "tests.test_generate"
LOADING, LORAS = "tests.test_pipeline_loading", "tests.test_pipeline_loras"
HERE = __name__
TRANSFORMER = "a cache for video and image transformers' blocks; this is a U-Net"
SET = "test_set_adapters_says_which_count_and_how_much"
TEXT_TOO = "test_text_encoders_are_adapted_too_and_other_pipelines_on_the_base_are_not"
DELETED = "test_delete_adapters_and_disable_lora_leave_the_trained_one"
FUSED = "test_fusing_takes_the_scale_and_the_names_that_are_asked"
SCALED = "test_the_scale_of_a_call_is_that_of_set_adapters_and_of_fusing"
SAVED = "test_what_diffusers_saves_with_its_metadata_is_read"
OFFLOADED = "test_loras_come_and_go_while_parts_are_offloaded"
ADAPTER = "the person comes by this model's own attention; an IP-Adapter would replace its processors"
HUB = "a bundle is written to a folder; push_to_hub is refused ({})"
ASKED = {
    "PipelineTesterMixin": {
        "test_save_load_local": (DRAWS, "test_a_saved_model_draws_the_same_image_in_a_new_process"),
        "test_pipeline_call_signature": (HABITS, "test_the_call_takes_what_text_to_image_pipelines_take"),
        "test_inference_batch_consistent": (HABITS, "test_prompts_times_images_of_each"),
        "test_inference_batch_single_identical": (HABITS, "test_a_batch_draws_what_each_of_its_rows_draws_alone"),
        "test_dict_tuple_outputs_equivalent": (HABITS, "test_a_tuple_holds_what_the_dictionary_does"),
        "test_components_function": (HABITS, "test_components_are_what_init_takes"),
        "test_float16_inference": (HERE, "test_half_precision_draws_nearly_the_same"),
        "test_save_load_float16": (HERE, "test_half_precision_survives_saving_and_opening"),
        "test_save_load_optional_components": (LOADING, "test_text_encoders_may_be_left_out"),
        "test_to_device": (HERE, "test_every_part_goes_to_the_device_that_is_named"),
        "test_to_dtype": (HABITS, "test_the_dtype_changes_with_to_and_when_loading"),
        "test_attention_slicing_forward_pass": (HERE, "test_slicing_attention_changes_nothing"),
        "test_sequential_cpu_offload_forward_pass": (HERE, "test_sequential_offload_keeps_the_unet_whole"),
        "test_sequential_offload_forward_pass_twice": "accelerate's hooks do not run with the CPU in the GPU's place",
        "test_model_cpu_offload_forward_pass": (HABITS, "test_offloaded_parts_draw_the_same_image"),
        "test_cpu_offload_forward_pass_twice": (HABITS, "test_offloaded_parts_draw_the_same_image"),
        "test_xformers_attention_forwardGenerator_pass": (
            HERE,
            "test_xformers_is_refused_and_turning_it_off_is_harmless",
        ),
        "test_num_images_per_prompt": (HABITS, "test_prompts_times_images_of_each"),
        "test_cfg": (HABITS, "test_guidance_keeps_shapes"),
        "test_callback_inputs": (HABITS, "test_callbacks_are_given_what_they_ask_for_change_it_and_can_stop"),
        "test_callback_cfg": (HERE, "test_a_callback_moves_the_guidance"),
        "test_serialization_with_variants": (LOADING, "test_a_bundle_is_saved_with_the_keywords_that_people_type"),
        "test_loading_with_variants": (LOADING, "test_what_cannot_hold_is_one_sentence"),
        "test_loading_with_incorrect_variants_raises_error": (LOADING, "test_what_cannot_hold_is_one_sentence"),
        "test_encode_prompt_works_in_isolation": (HERE, "test_encoding_needs_the_text_encoders_alone"),
        "test_StableDiffusionMixin_component": (HERE, "test_the_parts_that_stable_diffusion_mixins_need_are_there"),
        "test_layerwise_casting_inference": (HERE, "test_layers_stored_in_8_bits_draw"),
        "test_group_offloading_inference": (HERE, "test_groups_of_layers_on_disk_draw_the_same"),
        "test_pipeline_level_group_offloading_sanity_checks": (HERE, "test_parts_may_be_kept_out_of_group_offload"),
        "test_pipeline_level_group_offloading_inference": (HERE, "test_groups_of_layers_on_disk_draw_the_same"),
        "test_dtype_dict": (LOADING, "test_parts_may_have_dtypes_of_their_own_and_draw_together"),
        "test_torch_dtype_dict": (LOADING, "test_parts_may_have_dtypes_of_their_own_and_draw_together"),
        "test_dtype_alias": (LOADING, "test_the_dtype_may_be_asked_for_by_either_name"),
        "test_half_precision_inference_no_nan": (HERE, "test_half_precision_draws_nearly_the_same"),
        "test_output": "it holds a pipeline to numbers once noted down; ours is held to formulas, in test_generate",
        "test_pipeline_with_accelerator_device_map": (LOADING, "test_what_people_type_opens_the_same_pipeline"),
        "test_save_load_dduf": "a bundle is its own kind of file; dduf_file is refused",
    },
    "SDFunctionTesterMixin": {
        "test_vae_slicing": (HERE, "test_a_sliced_or_tiled_vae_draws_the_same"),
        "test_vae_tiling": (HERE, "test_a_sliced_or_tiled_vae_draws_the_same"),
        "test_freeu": (HERE, "test_freeu_changes_the_image_and_can_be_turned_off"),
        "test_freeu_enabled": (HERE, "test_freeu_changes_the_image_and_can_be_turned_off"),
        "test_freeu_disabled": (HERE, "test_freeu_changes_the_image_and_can_be_turned_off"),
        "test_fused_qkv_projections": (HERE, "test_projections_are_fused_in_the_vae_alone"),
    },
    "PipelineLatentTesterMixin": {
        "test_pt_np_pil_outputs_equivalent": (HERE, "test_output_types_hold_the_same_image"),
        "test_pt_np_pil_inputs_equivalent": (HERE, "test_references_and_images_of_every_type_are_the_same"),
        "test_latents_input": (HERE, "test_latents_may_stand_in_an_images_place"),
        "test_multi_vae": (HERE, "test_autoencoders_of_every_class_draw_and_redraw"),
    },
    "PipelineFromPipeTesterMixin": {
        "test_from_pipe_consistent_config": (HERE, "test_from_pipe_makes_a_pipeline_of_the_same_parts"),
        "test_from_pipe_consistent_forward_pass": (HERE, "test_from_pipe_makes_a_pipeline_of_the_same_parts"),
        "test_from_pipe_consistent_forward_pass_cpu_offload": (HERE, "test_from_pipe_of_an_offloaded_pipeline_draws"),
    },
    "PipelineKarrasSchedulerTesterMixin": {
        "test_karras_schedulers_shape": (HERE, "test_every_scheduler_draws_or_is_refused_in_one_sentence"),
    },
    "PipelinePushToHubTester": {
        "test_push_to_hub": HUB.format("test_a_bundle_is_saved_with_the_keywords_that_people_type"),
        "test_push_to_hub_in_organization": HUB.format("the same"),
        "test_push_to_hub_library_name": HUB.format("the same"),
    },
    "LoraTesterMixin": {
        "test_simple_inference_with_text_lora": (LORAS, TEXT_TOO),
        "test_low_cpu_mem_usage_with_loading": (LORAS, "test_loras_are_put_in_the_same_with_little_memory_or_much"),
        "test_simple_inference_with_text_lora_and_scale": (LORAS, SCALED),
        "test_simple_inference_with_text_lora_unloaded": (LORAS, TEXT_TOO),
        "test_simple_inference_with_text_lora_save_load": (LORAS, SAVED),
        "test_simple_inference_with_partial_text_lora": (
            LORAS,
            "test_some_layers_may_be_left_out_and_ranks_may_differ",
        ),
        "test_simple_inference_save_pretrained_with_text_lora": (LORAS, "test_what_cannot_hold_is_one_sentence"),
        "test_simple_inference_with_text_denoiser_lora_save_load": (LORAS, SAVED),
        "test_simple_inference_with_text_denoiser_lora_and_scale": (LORAS, SCALED),
        "test_lora_fuse_unfuse": (LORAS, "test_fused_loras_draw_the_same_and_come_out_again"),
        "test_simple_inference_with_text_denoiser_lora_unloaded": (
            LORAS,
            "test_a_loaded_lora_counts_until_it_is_unloaded",
        ),
        "test_simple_inference_with_text_denoiser_multi_adapter": (LORAS, SET),
        "test_wrong_adapter_name_raises_error": (LORAS, "test_what_cannot_hold_is_one_sentence"),
        "test_multiple_wrong_adapter_name_raises_error": (
            LORAS,
            "test_weights_for_networks_that_are_not_there_are_refused",
        ),
        "test_simple_inference_with_text_denoiser_multi_adapter_delete_adapter": (LORAS, DELETED),
        "test_simple_inference_with_text_denoiser_multi_adapter_weighted": (LORAS, SET),
        "test_get_adapters": (LORAS, SET),
        "test_get_list_adapters": (LORAS, "test_a_loaded_lora_counts_until_it_is_unloaded"),
        "test_simple_inference_with_text_lora_denoiser_fused_multi": (LORAS, FUSED),
        "test_lora_scale_kwargs_match_fusion": (LORAS, SCALED),
        "test_logs_info_when_no_lora_keys_found": (
            LORAS,
            "test_a_lora_that_does_not_fit_is_one_sentence_and_changes_nothing",
        ),
        "test_set_adapters_match_attention_kwargs": (LORAS, SCALED),
        "test_lora_adapter_metadata_is_loaded_correctly": (LORAS, SAVED),
        "test_lora_adapter_metadata_save_load_inference": (LORAS, SAVED),
        "test_lora_unload_add_adapter": (LORAS, "test_a_loaded_lora_counts_until_it_is_unloaded"),
        "test_inference_load_delete_load_adapters": (LORAS, DELETED),
    },
    "LoraMemoryTesterMixin": {
        "test_group_offloading_inference_denoiser": (LORAS, OFFLOADED),
        "test_lora_loading_model_cpu_offload": "diffusers takes its hooks off and puts them back for a GPU alone",
        "test_lora_group_offloading_delete_adapters": (LORAS, OFFLOADED),
    },
    "UNetLoraTesterMixin": {
        "test_simple_inference_with_text_denoiser_block_scale": (LORAS, SET),
        "test_simple_inference_with_text_denoiser_multi_adapter_block_lora": (LORAS, SET),
        "test_simple_inference_with_text_denoiser_block_scale_for_all_dict_options": (LORAS, SET),
    },
    "IPAdapterTesterMixin": dict.fromkeys(
        (
            "test_pipeline_signature",
            "test_ip_adapter",
            "test_ip_adapter_cfg",
            "test_ip_adapter_masks",
            "test_ip_adapter_faceid",
        ),
        ADAPTER,
    ),
    "PyramidAttentionBroadcastTesterMixin": dict.fromkeys(
        ("test_pyramid_attention_broadcast_layers", "test_pyramid_attention_broadcast_inference"), TRANSFORMER
    ),
    "FasterCacheTesterMixin": dict.fromkeys(
        ("test_faster_cache_basic_warning_or_errors_raised", "test_faster_cache_inference", "test_faster_cache_state"),
        TRANSFORMER,
    ),
    "FirstBlockCacheTesterMixin": {"test_first_block_cache_inference": TRANSFORMER},
    "TaylorSeerCacheTesterMixin": {"test_taylorseer_cache_inference": TRANSFORMER},
    "MagCacheTesterMixin": {"test_mag_cache_inference": TRANSFORMER},
}


def test_every_test_of_the_table_is_answered_by_one_that_is_there():
    for group, tests in ASKED.items():
        for name, answer in tests.items():
            if isinstance(answer, tuple):
                assert callable(getattr(importlib.import_module(answer[0]), answer[1], None)), f"{group}.{name}"
            else:
                assert len(answer.split()) > 5, f"{group}.{name}: say why"


@pytest.fixture(scope="module", params=depth(["sdxl"], ["studio", "sdxl"]))
def folder(request, tmp_path_factory):
    torch.set_num_threads(1)
    return tiny_base(tmp_path_factory.mktemp(request.param), like=request.param)


@pytest.fixture
def pipeline(folder):
    return built(folder)


def off(a, b):
    return float(np.abs(a - b).max())


def test_half_precision_draws_nearly_the_same(pipeline):
    before = drawn(pipeline)
    assert pipeline.to("cpu", torch.float16).dtype == torch.float16
    assert off(drawn(pipeline), before) < 0.05


def test_half_precision_survives_saving_and_opening(pipeline, tmp_path):
    pipeline.to(torch.float16).save_pretrained(tmp_path / "bundle")
    again = quiet(ImagineYourselfPipeline.from_pretrained(tmp_path / "bundle", torch_dtype=torch.float16))
    assert {part.dtype for part in (again.model, again.vae, again.text)} == {torch.float16}
    assert off(drawn(again), drawn(pipeline)) < 0.01


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_every_part_goes_to_the_device_that_is_named(pipeline, device):
    pipeline.to("meta")
    assert {part.device.type for part in (pipeline.model, pipeline.vae, pipeline.text)} == {"meta"}
    assert all(weight.device.type == "meta" for weight in pipeline.model.state_dict().values())
    with pytest.raises(NotImplementedError, match="no data"):
        pipeline.to(device)


def test_slicing_attention_changes_nothing(pipeline):
    before = drawn(pipeline)
    for size in ("auto", "max", 1):
        pipeline.enable_attention_slicing(size)
        assert off(drawn(pipeline), before) < 1e-4
    pipeline.disable_attention_slicing()
    assert off(drawn(pipeline), before) < 1e-6


def test_sequential_offload_keeps_the_unet_whole(pipeline):
    """Its branches are read from more entrances than `forward`, which is all that accelerate's hooks watch."""
    pipeline.enable_sequential_cpu_offload(device="cpu")
    hooked = {
        name: any(hasattr(m, "_hf_hook") for m in pipeline.components[name].modules()) for name in ("model", "vae")
    }
    assert hooked == {"model": False, "vae": True}
    assert all(weight.device.type == "cpu" for weight in pipeline.model.parameters())


def test_xformers_is_refused_and_turning_it_off_is_harmless(pipeline):
    before = drawn(pipeline)
    pipeline.disable_xformers_memory_efficient_attention()
    assert np.array_equal(drawn(pipeline), before), "diffusers' own would replace the trained processors"
    with pytest.raises(UserError, match="xformers would take the person's attention out"):
        pipeline.enable_xformers_memory_efficient_attention()
    assert np.array_equal(drawn(pipeline), before)


def test_encoding_needs_the_text_encoders_alone(pipeline):
    before = drawn(pipeline, negative_prompt="a hat")
    words, blank = pipeline.encode_prompt(PROMPT), pipeline.encode_negative("a hat")
    kept = pipeline.encode_reference(FACE)
    pipeline.free_text()
    given = {"prompt": None, "prompt_embeds": words, "negative_prompt_embeds": blank}
    assert off(drawn(pipeline, **given, reference=None, reference_embeds=kept), before) < 1e-4
    with pytest.raises(UserError, match="text encoders were freed"):
        drawn(pipeline)


def test_the_parts_that_stable_diffusion_mixins_need_are_there(pipeline):
    assert isinstance(pipeline, StableDiffusionMixin) and isinstance(pipeline, DiffusionPipeline)
    assert pipeline.unet is pipeline.model.unet and hasattr(pipeline, "vae")
    assert isinstance(pipeline.unet, diffusers.UNet2DConditionModel)


def test_layers_stored_in_8_bits_draw(pipeline):
    before = drawn(pipeline)
    pipeline.unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    convolution = pipeline.unet.down_blocks[0].resnets[0].conv1
    assert convolution.weight.dtype == torch.float8_e4m3fn
    assert 0 < off(drawn(pipeline), before) < 0.5


@pytest.mark.parametrize(
    "how", [{"offload_type": "leaf_level", "exclude_modules": ["text"]}, {"num_blocks_per_group": 1}]
)
def test_groups_of_layers_on_disk_draw_the_same(pipeline, tmp_path, how):
    """On disk, since what is not brought back in time is then no number at all."""
    before = drawn(pipeline)
    pipeline.enable_group_offload(torch.device("cpu"), offload_to_disk_path=str(tmp_path), **how)
    assert list(tmp_path.rglob("*.safetensors"))
    for _ in range(2):
        assert off(drawn(pipeline), before) < 1e-5


def test_shared_weights_that_would_be_lost_on_disk_are_refused_and_in_memory_they_are_kept(pipeline, tmp_path):
    before = drawn(pipeline)
    with pytest.raises(UserError, match="layers of 'ul2' share weights"):
        pipeline.enable_group_offload("cpu", offload_type="leaf_level", offload_to_disk_path=tmp_path)
    assert np.array_equal(drawn(pipeline), before) and not list(tmp_path.iterdir())
    pipeline.enable_group_offload("cpu", offload_type="leaf_level")
    assert np.array_equal(drawn(pipeline), before)


def test_parts_may_be_kept_out_of_group_offload(pipeline, tmp_path):
    pipeline.enable_group_offload("cpu", offload_to_disk_path=tmp_path, num_blocks_per_group=1, exclude_modules="text")
    assert {path.name for path in tmp_path.iterdir()} == {"vae"}
    with pytest.raises(ValueError, match="group offloading"):
        pipeline.enable_model_cpu_offload(device="cpu")


def test_a_sliced_or_tiled_vae_draws_the_same(pipeline):
    two = {"prompt": [PROMPT] * 2, "reference": [FACE] * 2}
    before = drawn(pipeline, **two)
    pipeline.vae.enable_slicing()
    assert off(drawn(pipeline, **two), before) < 1e-4
    pipeline.vae.disable_slicing()
    pipeline.vae.enable_tiling()
    assert off(drawn(pipeline, **two), before) < 0.05
    assert drawn(pipeline, height=96, width=128).shape == (1, 96, 128, 3)
    assert drawn(pipeline, image=FACE, strength=0.5).shape == (1, 64, 64, 3)


def test_freeu_changes_the_image_and_can_be_turned_off(pipeline):
    before = drawn(pipeline)
    pipeline.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    assert off(drawn(pipeline), before) > 1e-3
    pipeline.disable_freeu()
    assert np.array_equal(drawn(pipeline), before)


def test_projections_are_fused_in_the_vae_alone(pipeline):
    before = drawn(pipeline)
    with pytest.raises(UserError, match="give unet=False for the VAE's"):
        pipeline.fuse_qkv_projections()
    assert np.array_equal(drawn(pipeline), before)
    pipeline.fuse_qkv_projections(unet=False)
    assert off(drawn(pipeline), before) < 1e-4
    pipeline.unfuse_qkv_projections()
    assert off(drawn(pipeline), before) < 1e-4


def test_output_types_hold_the_same_image(pipeline):
    array = drawn(pipeline)
    tensor, picture = drawn(pipeline, output_type="pt"), drawn(pipeline, output_type="pil")[0]
    assert np.array_equal(tensor.movedim(1, -1).numpy(), array)
    assert np.array_equal(np.asarray(picture), (array[0] * 255).round().astype(np.uint8))
    latents = drawn(pipeline, output_type="latent")
    assert latents.shape == (1, 4, 16, 16)


def test_references_and_images_of_every_type_are_the_same(pipeline):
    tensor = torch.from_numpy(FACE).movedim(-1, 0) / 255
    for name in ("reference", "image"):
        first = drawn(pipeline, **{name: FACE})
        for form in (Image.fromarray(FACE), tensor, FACE.astype(np.float32) / 255):
            assert off(drawn(pipeline, **{name: form}), first) < 1e-5, name


def test_a_batch_of_images_may_be_one_array_or_tensor(pipeline):
    other = FACE[::-1].copy()
    two = {"prompt": [PROMPT] * 2, "reference": [FACE, other]}
    arrays = np.stack([FACE, other])
    tensors = torch.from_numpy(arrays).movedim(-1, 1) / 255
    for name in ("reference", "image"):
        first = drawn(pipeline, **two | {name: [FACE, other]})
        for form in (arrays, tensors, (tensors * 255).round().to(torch.uint8), [one[None] for one in tensors]):
            assert off(drawn(pipeline, **two | {name: form}), first) < 1e-5, name
        assert off(drawn(pipeline, **{name: tensors[:1]}), drawn(pipeline, **{name: FACE})) < 1e-5


@pytest.mark.parametrize(
    "wrong", [FACE.astype(np.float32), FACE.astype(np.float32) / 127.5 - 1, FACE.astype(int), FACE * np.nan]
)
def test_an_image_whose_numbers_do_not_lie_in_0_to_1_is_refused_and_not_clipped(pipeline, wrong):
    for given in ({"reference": wrong}, {"image": torch.from_numpy(wrong).movedim(-1, 0)}):
        with pytest.raises(UserError, match="give uint8, or floats from 0 to 1"):
            drawn(pipeline, **given)


def test_latents_may_stand_in_an_images_place(pipeline):
    image = np.asarray(FACE[:40, :40])
    pixels = to_pixels([np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.LANCZOS))])
    latents = vae_encode(pipeline.vae, pixels)
    assert off(drawn(pipeline, image=latents), drawn(pipeline, image=image)) < 1e-5
    with pytest.raises(UserError, match=r"latents must be \(1, 4, 16, 16\), got \(1, 4, 8, 8\)"):
        drawn(pipeline, image=latents[..., :8, :8])


OWN = {"in_channels": 3, "out_channels": 3, "latent_channels": 4, "norm_num_groups": 4}
BLOCKS = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
AUTOENCODERS = [
    lambda: diffusers.AutoencoderKL(**OWN, **BLOCKS, block_out_channels=(8, 8, 16)),
    lambda: diffusers.AsymmetricAutoencoderKL(
        **OWN, **BLOCKS, down_block_out_channels=(8, 8, 16), up_block_out_channels=(8, 8, 16)
    ),
    lambda: diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
    ),
]


@pytest.mark.parametrize("vae", AUTOENCODERS)
def test_autoencoders_of_every_class_draw_and_redraw(pipeline, vae):
    other = quiet(ImagineYourselfPipeline(**pipeline.components | {"vae": vae()}))
    assert drawn(other).shape == drawn(other, image=FACE).shape == drawn(pipeline).shape


def test_a_callback_moves_the_guidance(pipeline):
    seen = []

    def cut(pipe, step, t, given):
        seen.append((pipe.guidance_scale, pipe.num_timesteps))
        if step == 0:
            pipe._guidance_scale = 0.0  # as diffusers' recipe for guidance in the first steps alone
        return given

    asked = {"num_inference_steps": 3, "guidance_scale": 5.0}
    moved = drawn(pipeline, **asked, callback_on_step_end=cut)
    assert seen == [(5.0, 3), (0.0, 3), (0.0, 3)]
    assert off(moved, drawn(pipeline, **asked)) > 1e-3
    assert off(moved, drawn(pipeline, num_inference_steps=3, guidance_scale=1.0)) > 1e-3


def test_guidance_of_1_or_less_is_none_as_in_diffusers(pipeline):
    assert np.array_equal(drawn(pipeline, guidance_scale=0.0), drawn(pipeline, guidance_scale=1.0))


def test_diffusers_own_callbacks_are_asked_which_tensors_they_take(pipeline):
    with pytest.raises(UserError, match=r"'prompt_embeds' is not among \['latents'\]"):
        drawn(pipeline, callback_on_step_end=diffusers.callbacks.SDCFGCutoffCallback(cutoff_step_ratio=0.5))


def test_latents_that_are_given_are_the_start(pipeline):
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    assert off(drawn(pipeline, latents=noise, generator=None), drawn(pipeline)) < 1e-5
    with pytest.raises(UserError, match=r"latents must be \(1, 4, 16, 16\), got \(1, 4, 8, 8\)"):
        drawn(pipeline, latents=noise[..., :8, :8])


def test_from_pipe_makes_a_pipeline_of_the_same_parts(pipeline):
    again = quiet(ImagineYourselfPipeline.from_pipe(pipeline))
    assert again.config.keys() == pipeline.config.keys()
    assert all(again.components[name] is part for name, part in pipeline.components.items())
    assert np.array_equal(drawn(again), drawn(pipeline))
    other = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config, use_karras_sigmas=True)
    assert ImagineYourselfPipeline.from_pipe(pipeline, scheduler=other).scheduler is other


def test_from_pipe_of_an_offloaded_pipeline_draws(pipeline):
    before = drawn(pipeline)
    pipeline.enable_model_cpu_offload(device="cpu")
    drawn(pipeline)
    again = quiet(ImagineYourselfPipeline.from_pipe(pipeline))
    again.enable_model_cpu_offload(device="cpu")
    assert np.array_equal(drawn(again), before)


def schedulers():
    kinds = {name: getattr(diffusers, name) for name in dir(diffusers) if name.endswith("Scheduler")}
    return sorted(name for name, kind in kinds.items() if hasattr(kind, "from_config") and "Flax" not in name)


OTHER_NEEDS = {  # settings, or packages, of their own, which diffusers says itself
    "AmusedScheduler",
    "CosineDPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "HeliosDMDScheduler",
    "HeliosScheduler",
    "RFD4ProteinaScheduler",
    "SCMScheduler",
    "UnCLIPScheduler",
    "VQDiffusionScheduler",
}
KARRAS = {kind.name for kind in diffusers.schedulers.KarrasDiffusionSchedulers}


def test_every_scheduler_draws_or_is_refused_in_one_sentence(pipeline):
    drew, config = set(), pipeline.scheduler.config
    for name in schedulers():
        if name in OTHER_NEEDS:
            continue
        pipeline.scheduler = getattr(diffusers, name).from_config(config, skip_prk_steps=True)
        try:
            assert np.isfinite(drawn(pipeline, num_inference_steps=4)).all(), name
            drew.add(name)
        except UserError as error:
            assert f"{name} does not fit this U-Net" in str(error)
    assert KARRAS - OTHER_NEEDS <= drew and not any("FlowM" in name for name in drew)


def test_one_step_draws(pipeline):
    assert np.isfinite(drawn(pipeline, num_inference_steps=1)).all()
    assert np.isfinite(drawn(pipeline, num_inference_steps=1, image=FACE, strength=0.3)).all()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pipeline: pickle.loads(pickle.dumps(pipeline))])
def test_a_copy_draws_the_same_and_stands_alone(pipeline, copied):
    other = copied(pipeline)  # before it draws: from then on transformers' hooks on SDXL's encoders cannot be pickled
    before = drawn(pipeline)
    for weight in pipeline.model.parameters():
        weight.data.zero_()
    assert np.array_equal(drawn(other), before)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"generator": [torch.Generator()]}, "1 for 2 images; give one per image"),
        ({"prompt": None, "prompt_embeds": torch.zeros(2, 77, 32)}, "prompt_embeds: give what encode_prompt"),
        ({"negative_prompt_embeds": torch.zeros(2, 77, 32)}, "negative_prompt_embeds: give what encode_prompt"),
        ({"reference": [FACE] * 3}, "3 for 2 prompts"),
    ],
)
def test_rows_that_do_not_belong_together_are_one_sentence(pipeline, given, said):
    with pytest.raises(UserError, match=said):
        drawn(pipeline, **({"prompt": [PROMPT] * 2, "reference": [FACE] * 2} | given))


def test_embeddings_of_more_prompts_than_references_are_one_sentence(pipeline):
    words = pipeline.encode_prompt([PROMPT] * 3)
    with pytest.raises(UserError, match="2 for 3 prompts"):
        drawn(pipeline, prompt=None, prompt_embeds=words, reference=[FACE] * 2)
    with pytest.raises(UserError, match="negative_prompt_embeds: 3 rows for 1 prompts"):
        drawn(pipeline, negative_prompt_embeds=words)


def test_the_call_and_the_doors_take_what_the_well_known_pipelines_do():
    """By name: what SDXL's pipeline takes for LoRAs is taken here."""
    known = diffusers.StableDiffusionXLPipeline
    for name in ("load_lora_weights", "set_adapters", "fuse_lora", "unfuse_lora", "delete_adapters"):
        theirs = set(inspect.signature(getattr(known, name)).parameters) - {"kwargs"}
        assert theirs <= set(inspect.signature(getattr(ImagineYourselfPipeline, name)).parameters), name
