"""LoRAs beside the trained one, by the method names that diffusers' users know."""

import numpy as np
import pytest
import torch
from peft import LoraConfig
from safetensors.torch import save_file

from iy.errors import UserError
from iy.model import ImagineYourselfPipeline, bundle, lora
from tests.drawing import asked, built, drawn, quiet, style
from tests.tiny import tiny_base


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.set_num_threads(1)
    return tiny_base(tmp_path_factory.mktemp("sdxl"), like="sdxl")


@pytest.fixture
def pipeline(folder):
    return built(folder)


def same(a, b):
    return bool(np.abs(a - b).max() < 1e-4)


def test_a_loaded_lora_counts_until_it_is_unloaded(pipeline):
    alone = drawn(pipeline)
    assert pipeline.get_list_adapters() == {} and pipeline.get_active_adapters() == []
    pipeline.load_lora_weights(style(pipeline), adapter_name="style")
    assert pipeline.get_list_adapters() == {"unet": ["style"]} and pipeline.get_active_adapters() == ["style"]
    assert not same(drawn(pipeline), alone)
    pipeline.unload_lora_weights()
    assert pipeline.get_list_adapters() == {} and np.array_equal(drawn(pipeline), alone)
    pipeline.load_lora_weights(style(pipeline), adapter_name="style")
    assert not same(drawn(pipeline), alone)


def test_set_adapters_says_which_count_and_how_much(pipeline):
    alone = drawn(pipeline)
    pipeline.load_lora_weights(style(pipeline), adapter_name="one")
    one = drawn(pipeline)
    pipeline.load_lora_weights(style(pipeline, 5), adapter_name="two")
    assert pipeline.get_active_adapters() == ["two"], "as in diffusers, the newest"
    two = drawn(pipeline)
    pipeline.set_adapters("one")
    assert same(drawn(pipeline), one) and not same(one, two)
    pipeline.set_adapters(["one", "two"], [1.0, 0.0])
    assert same(drawn(pipeline), one) and pipeline.get_active_adapters() == ["one", "two"]
    pipeline.set_adapters(["one", "two"], adapter_weights=[0.5, 0.7])
    assert not any(same(drawn(pipeline), other) for other in (alone, one, two))
    pipeline.set_adapters("one", [{"unet": {"down": 0.0, "mid": 0.0, "up": 0.0}}])
    assert same(drawn(pipeline), alone)
    pipeline.set_adapters([])
    assert np.array_equal(drawn(pipeline), alone)


@torch.no_grad()
def test_a_lora_adds_its_product_to_the_trained_one_and_is_not_in_a_bundle(pipeline, tmp_path):
    bundle.save(pipeline.model, tmp_path / "before", {})
    name, layer = next((n, m) for n, m in pipeline.unet.named_modules() if n.endswith("attn1.to_q"))
    x, tensors = torch.randn(3, layer.in_features), style(pipeline)
    without = layer(x)
    pipeline.load_lora_weights(tensors, adapter_name="style")
    pipeline.set_adapters("style", 0.5)
    a, b = (tensors[f"unet.{name}.lora_{half}.weight"] for half in "AB")
    torch.testing.assert_close(layer(x) - without, 0.5 * x @ a.T @ b.T, atol=1e-5, rtol=1e-4)
    bundle.save(pipeline.model, tmp_path / "after", {})
    for file in ("adapter.safetensors", "lora.safetensors"):
        assert (tmp_path / "before" / file).read_bytes() == (tmp_path / "after" / file).read_bytes()


def test_without_a_name_they_are_called_as_in_diffusers(pipeline):
    for name in ("default_0", "default_1"):
        pipeline.load_lora_weights(style(pipeline))
        assert pipeline.get_active_adapters() == [name]


def test_delete_adapters_and_disable_lora_leave_the_trained_one(pipeline):
    alone = drawn(pipeline)
    for name in ("style", "a"):  # "a" sorts before the trained one, which peft would take for the next in line
        pipeline.load_lora_weights(style(pipeline), adapter_name=name)
    pipeline.disable_lora()
    assert np.array_equal(drawn(pipeline), alone)
    pipeline.enable_lora()
    assert pipeline.get_active_adapters() == ["a"] and not same(drawn(pipeline), alone)
    pipeline.delete_adapters("a")
    assert pipeline.get_list_adapters() == {"unet": ["style"]} and np.array_equal(drawn(pipeline), alone)
    pipeline.delete_adapters(["style"])
    assert np.array_equal(drawn(pipeline), alone)


def test_fused_loras_draw_the_same_and_come_out_again(pipeline):
    pipeline.load_lora_weights(style(pipeline), adapter_name="style")
    apart = drawn(pipeline)
    pipeline.fuse_lora()
    pipeline.fuse_lora()
    assert pipeline.fused_loras == {"style"} and pipeline.num_fused_loras == 1
    assert same(drawn(pipeline), apart)
    pipeline.unfuse_lora()
    assert pipeline.num_fused_loras == 0 and np.array_equal(drawn(pipeline), apart)


def test_fusing_takes_the_scale_and_the_names_that_are_asked(pipeline):
    alone = drawn(pipeline)
    pipeline.load_lora_weights(style(pipeline), adapter_name="one")
    pipeline.set_adapters("one", 0.3)
    weak = drawn(pipeline)
    pipeline.set_adapters("one", 1.0)
    pipeline.load_lora_weights(style(pipeline, 5), adapter_name="two")
    pipeline.fuse_lora(adapter_names=["one"], lora_scale=0.3)
    assert same(drawn(pipeline), weak) and pipeline.fused_loras == {"one"}
    pipeline.unfuse_lora()
    pipeline.fuse_lora(lora_scale=0.0)
    assert same(drawn(pipeline), alone), "the trained one is never scaled"


def test_what_is_fused_stays_when_the_loras_are_unloaded_and_another_can_follow(pipeline):
    """The well-known recipe for speed: fuse, unload."""
    pipeline.load_lora_weights(style(pipeline), adapter_name="style")
    with_style = drawn(pipeline)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    assert same(drawn(pipeline), with_style) and pipeline.get_list_adapters() == {}
    pipeline.load_lora_weights(style(pipeline, 5), adapter_name="other")
    assert not same(drawn(pipeline), with_style)
    pipeline.unload_lora_weights()
    assert same(drawn(pipeline), with_style) and pipeline.fused_loras == {"style"}


def test_fused_weights_that_moved_come_back_in_the_new_dtype(pipeline):
    pipeline.fuse_lora()
    pipeline.to(torch.float64)
    pipeline.unfuse_lora()
    assert {weight.dtype for weight in pipeline.unet.parameters()} == {torch.float64}
    assert np.isfinite(drawn(pipeline)).all()


def test_text_encoders_are_adapted_too_and_other_pipelines_on_the_base_are_not(pipeline):
    other = quiet(ImagineYourselfPipeline(**pipeline.components))
    alone = drawn(pipeline)
    parts = ("text_encoder", "text_encoder_2")
    pipeline.load_lora_weights(style(pipeline, parts=parts), adapter_name="words")
    assert pipeline.get_list_adapters() == {part: ["words"] for part in parts}
    changed = drawn(pipeline)
    assert not same(changed, alone) and np.array_equal(drawn(other), alone)
    pipeline.fuse_lora()
    assert same(drawn(pipeline), changed) and same(drawn(other), alone)
    pipeline.unfuse_lora()
    pipeline.unload_lora_weights()
    assert np.array_equal(drawn(pipeline), alone)


def test_kohyas_layout_is_read(pipeline):
    """As the trainers of the web write it: lora_unet_…, lora_te1_…, lora_te2_…, with an alpha."""
    tensors = {}
    named = {"unet": "lora_unet", "text_encoder": "lora_te1_text_model", "text_encoder_2": "lora_te2_text_model"}
    for key, value in style(pipeline, parts=tuple(named)).items():
        part, _, rest = key.partition(".")
        layer, _, end = rest.partition(".lora_")
        stem = f"{named[part]}_{layer.removeprefix('text_model.').replace('.', '_')}"
        tensors[f"{stem}.lora_{'down' if end.startswith('A') else 'up'}.weight"] = value
        tensors[f"{stem}.alpha"] = torch.tensor(1.0)
    alone = drawn(pipeline)
    pipeline.load_lora_weights(tensors, adapter_name="kohya")
    assert set(pipeline.get_list_adapters()) == set(named) and not same(drawn(pipeline), alone)
    layer = next(m for n, m in pipeline.unet.named_modules() if n.endswith("attn1.to_q"))
    assert layer.scaling["kohya"] == 0.5, "alpha by rank"


def test_a_lora_is_read_from_a_file_by_text_or_path_and_from_a_folder(pipeline, tmp_path):
    pipeline.load_lora_weights(style(pipeline), adapter_name="tensors")
    expected = drawn(pipeline)
    save_file({key: value.half() for key, value in style(pipeline).items()}, tmp_path / "style.safetensors")
    for name, source, more in (
        ("text", str(tmp_path / "style.safetensors"), {}),
        ("path", tmp_path / "style.safetensors", {}),
        ("folder", tmp_path, {"weight_name": "style.safetensors"}),
    ):
        pipeline.load_lora_weights(source, adapter_name=name, **more)
        assert np.abs(drawn(pipeline) - expected).max() < 0.05 and pipeline.get_active_adapters() == [name]


def test_hotswap_puts_new_weights_in_the_old_ones_place(pipeline):
    pipeline.load_lora_weights(style(pipeline, 5), adapter_name="two")
    two = drawn(pipeline)
    pipeline.load_lora_weights(style(pipeline), adapter_name="one")
    pipeline.load_lora_weights(style(pipeline, 5), adapter_name="one", hotswap=True)
    assert np.array_equal(drawn(pipeline), two) and pipeline.get_list_adapters() == {"unet": ["two", "one"]}


def test_what_can_be_trained_does_not_change(pipeline):
    before = {name for name, weight in pipeline.model.named_parameters() if weight.requires_grad}
    assert before
    pipeline.load_lora_weights(style(pipeline), adapter_name="style")
    pipeline.set_adapters("style", 0.5)
    pipeline.disable_lora()
    pipeline.enable_lora()
    pipeline.fuse_lora()
    pipeline.unfuse_lora()
    assert before == {name for name, weight in pipeline.model.named_parameters() if weight.requires_grad}
    pipeline.unload_lora_weights()
    assert before == {name for name, weight in pipeline.model.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: {key: value[:, :1] for key, value in t.items()}, "does not fit this base"),
        (lambda t: {f"transformer.{key}": value for key, value in t.items()}, "named transformer.…; this pipeline"),
        (lambda t: {key.replace("lora", "other"): value for key, value in t.items()}, "so it is none"),
        (lambda t: {key: value for key, value in t.items() if "lora_B" in key}, "lora_A.weight is missing"),
        (lambda t: {}, "holds no tensors"),
    ],
)
def test_a_lora_that_does_not_fit_is_one_sentence_and_changes_nothing(pipeline, change, said):
    pipeline.load_lora_weights(style(pipeline), adapter_name="a")  # sorts before the trained one's name
    before = drawn(pipeline)
    with pytest.raises(UserError, match=said):
        pipeline.load_lora_weights(change(style(pipeline)), adapter_name="broken")
    assert pipeline.get_list_adapters() == {"unet": ["a"]} and pipeline.get_active_adapters() == ["a"]
    assert np.array_equal(drawn(pipeline), before)


def test_what_cannot_hold_is_one_sentence(pipeline, tmp_path):
    torch.save(style(pipeline), tmp_path / "style.bin")
    for source, more, said in (
        (tmp_path / "style.bin", {}, "never from a pickle"),
        (tmp_path, {"weight_name": "style.bin"}, "never from a pickle"),
        (tmp_path, {}, "cannot be read"),
        (style(pipeline), {"use_safetensors": False}, "never from a pickle"),
        (tmp_path / "absent.safetensors", {}, "cannot be read"),
        (style(pipeline), {"adapter_name": "personal"}, "'personal' is taken"),
        (style(pipeline), {"adapter_name": "new", "hotswap": True}, "no LoRA 'new' is loaded"),
    ):
        with pytest.raises(UserError, match=said):
            pipeline.load_lora_weights(source, **more)
    pipeline.load_lora_weights(style(pipeline), adapter_name="style")
    for call, said in (
        (lambda: pipeline.load_lora_weights(style(pipeline), adapter_name="style"), "'style' is taken"),
        (lambda: pipeline.set_adapters("personal"), "no LoRA 'personal' is loaded"),
        (lambda: pipeline.delete_adapters("personal"), "no LoRA 'personal' is loaded"),
        (lambda: pipeline.set_adapters(["style"], [0.5, 0.5]), "not equal to the length of the weights"),
        (lambda: pipeline.fuse_lora(["vae"]), "'vae' takes no LoRA"),
        (lambda: pipeline.fuse_lora(adapter_names=["other"]), "no LoRA 'other' is loaded"),
        (lambda: pipeline.save_pretrained(tmp_path / "bundle"), "would lose LoRA 'style'"),
    ):
        with pytest.raises(UserError, match=said):
            call()
    pipeline.fuse_lora()
    for call in (
        lambda: pipeline.load_lora_weights(style(pipeline)),
        lambda: pipeline.set_adapters("style", 0.5),
        lambda: pipeline.delete_adapters("style"),
        lambda: pipeline.disable_lora(),
    ):
        with pytest.raises(UserError, match=r"unfuse_lora\(\) first"):
            call()
    pipeline.unload_lora_weights()
    with pytest.raises(UserError, match="would lose LoRA 'style'"):
        pipeline.save_pretrained(tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_fusing_weights_that_are_not_finite_is_refused_when_asked_and_nothing_is_fused(pipeline):
    before = drawn(pipeline)
    broken = {key: value * float("nan") for key, value in style(pipeline).items()}
    pipeline.load_lora_weights(broken, adapter_name="broken")
    with pytest.raises(UserError, match="cannot be fused, and none is now"):
        pipeline.fuse_lora(safe_fusing=True)
    pipeline.delete_adapters("broken")
    assert np.array_equal(drawn(pipeline), before)


def test_text_tensors_for_text_encoders_that_were_freed_are_refused(pipeline):
    tensors, words = style(pipeline, parts=("text_encoder",)), pipeline.encode_prompt("a man")
    pipeline.free_text()
    with pytest.raises(UserError, match=r"named text_encoder.…; this pipeline takes unet.…"):
        pipeline.load_lora_weights(tensors)
    pipeline.load_lora_weights(style(pipeline))
    blank = {name: (hidden, mask & False) for name, (hidden, mask) in words.items()}
    assert np.isfinite(pipeline(**asked(prompt=None, prompt_embeds=words, negative_prompt_embeds=blank)).images).all()


EVERYWHERE = ("unet", "text_encoder", "text_encoder_2")


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_the_scale_of_a_call_is_that_of_set_adapters_and_of_fusing(pipeline, share):
    alone = drawn(pipeline)
    pipeline.load_lora_weights(style(pipeline, parts=EVERYWHERE), adapter_name="style")
    whole, called = drawn(pipeline), drawn(pipeline, cross_attention_kwargs={"scale": share})
    assert not same(called, whole) and np.array_equal(drawn(pipeline), whole), "it holds for one call"
    assert same(called, alone) == (share == 0)
    pipeline.set_adapters("style", share)
    assert same(drawn(pipeline), called)
    pipeline.set_adapters("style", 1.0)
    pipeline.fuse_lora(lora_scale=share)
    assert same(drawn(pipeline), called)
    with pytest.raises(UserError, match="'ip_adapter_masks' cannot hold: it takes scale"):
        drawn(pipeline, cross_attention_kwargs={"ip_adapter_masks": []})


def test_weights_for_networks_that_are_not_there_are_refused(pipeline):
    pipeline.load_lora_weights(style(pipeline), adapter_name="style")
    before = drawn(pipeline)
    with pytest.raises(UserError, match="set_adapters: there is no 'ucnet'"):
        pipeline.set_adapters("style", {"ucnet": 0.0})
    assert np.array_equal(drawn(pipeline), before)


def test_loras_are_put_in_the_same_with_little_memory_or_much(pipeline):
    images = []
    for little in (True, False):
        pipeline.load_lora_weights(style(pipeline, parts=EVERYWHERE), low_cpu_mem_usage=little)
        images.append(drawn(pipeline))
        pipeline.unload_lora_weights()
    assert np.array_equal(*images)


def test_some_layers_may_be_left_out_and_ranks_may_differ(pipeline):
    tensors = style(pipeline, parts=EVERYWHERE)
    pipeline.load_lora_weights(tensors, adapter_name="whole")
    whole = drawn(pipeline)
    pipeline.unload_lora_weights()
    for part in EVERYWHERE:
        a, b = [key for key in tensors if key.startswith(f"{part}.")][:2]
        tensors[a], tensors[b] = tensors[a][:1], tensors[b][:, :1]  # a layer of rank 1 among those of 2
        for key in [key for key in tensors if key.startswith(f"{part}.")][-2:]:
            del tensors[key]
    pipeline.load_lora_weights(tensors, adapter_name="part")
    ranks = {
        layer.r["part"]
        for network in pipeline.adapted().values()
        for layer in lora.layers(network)
        if "part" in layer.r
    }
    assert ranks == {1, 2} and not same(drawn(pipeline), whole)


@pytest.mark.parametrize("alpha", [1, 8])
@pytest.mark.filterwarnings("ignore:While injecting the PEFT adapters")
def test_what_diffusers_saves_with_its_metadata_is_read(pipeline, tmp_path, alpha):
    """A trainer's own way out: peft's configuration in the file's header says alpha, which no tensor does."""
    name, layer = next((n, m) for n, m in pipeline.unet.named_modules() if n.endswith("attn1.to_q"))
    tensors = {key.removeprefix("unet."): value for key, value in style(pipeline).items()}
    config = LoraConfig(r=2, lora_alpha=alpha, target_modules=["to_q"]).to_dict()
    ImagineYourselfPipeline.save_lora_weights(
        tmp_path, unet_lora_layers=tensors, unet_lora_adapter_metadata=config | {"target_modules": ["to_q"]}
    )
    pipeline.load_lora_weights(tmp_path, adapter_name="trained")
    assert layer.scaling["trained"] == alpha / 2


def test_loras_come_and_go_while_parts_are_offloaded(pipeline):
    alone = drawn(pipeline)
    pipeline.enable_group_offload("cpu", offload_type="leaf_level")
    pipeline.load_lora_weights(style(pipeline), adapter_name="style")
    first = drawn(pipeline)
    pipeline.delete_adapters("style")
    assert same(drawn(pipeline), alone) and not same(first, alone)
    pipeline.load_lora_weights(style(pipeline), adapter_name="style")
    assert same(drawn(pipeline), first)
