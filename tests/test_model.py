"""Parallel attention is the paper's formula, a fresh model is the base, training reaches what it should and no more."""

import copy
import functools
import math

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iy.diffusion import POOLED, encode_text, load_base, text_states
from iy.errors import UserError
from iy.model import ImagineYourselfPipeline, Personaliser, lora
from iy.model.conditioning import Vision, stack, without_text, without_vision
from tests.tiny import tiny_base, tiny_params

PROMPTS = ["a smiling man", "an angry woman in a yellow hat, outdoors"]
LATENTS = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
TIMES = torch.tensor([20, 700])
FACES = torch.rand(2, 3, 3, 40, 40, generator=torch.Generator().manual_seed(2)) * 2 - 1
SOME = torch.tensor([[True, True, False], [False, False, False]])


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    torch.set_num_threads(1)
    settings = tiny_params(tiny_base(tmp_path_factory.mktemp("base")))
    return load_base(settings.base), settings.model


@pytest.fixture(scope="module")
def text(opened):
    return encode_text(opened[0], PROMPTS)


def trained(base, model_settings, seed=0):
    """A model whose every trainable weight has moved, as after training."""
    model = Personaliser(base, model_settings)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.trainable_parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def model(opened):
    return trained(*opened)


@pytest.fixture(scope="module")
def shaped(tmp_path_factory):
    """A base built like the published one of that name, opened once."""

    @functools.cache
    def opened(like):
        settings = tiny_params(tiny_base(tmp_path_factory.mktemp(like), like=like))
        return load_base(settings.base), settings.model

    return opened


@pytest.mark.parametrize("like", ["studio", "sd15", "sdxl"])
@pytest.mark.parametrize("faces, present", [(None, None), (FACES, torch.ones(2, 3, dtype=torch.bool)), (FACES, SOME)])
@torch.no_grad()
def test_a_fresh_model_is_the_base_exactly(shaped, like, faces, present):
    base, model_settings = shaped(like)
    text = encode_text(base, PROMPTS)
    hidden, mask = text["clip"]
    more = {}
    if like == "sdxl":
        sizes = torch.tensor([[64, 64, 0, 0, 64, 64]] * 2)
        more = {"added_cond_kwargs": {"text_embeds": text[POOLED][0][:, 0], "time_ids": sizes}}
    expected = base.unet(LATENTS, TIMES, encoder_hidden_states=hidden, encoder_attention_mask=mask, **more).sample
    model = Personaliser(base, model_settings)
    assert (model(LATENTS, TIMES, text, faces, present) - expected).abs().max() == 0
    if like == "sdxl":
        other = text | {POOLED: (text[POOLED][0].flip(0), text[POOLED][1])}
        assert (model(LATENTS, TIMES, other) - expected).abs().max() > 1e-5, "the pooled text counts"


@torch.no_grad()
def test_sdxl_is_told_the_sizes_of_each_picture_in_training_and_in_drawing(shaped):
    base, model_settings = shaped("sdxl")
    text, sizes = encode_text(base, PROMPTS), torch.tensor([[96, 80, 8, 0, 64, 64], [64, 64, 0, 0, 64, 64]])
    hidden, mask = text["clip"]
    more = {"added_cond_kwargs": {"text_embeds": text[POOLED][0][:, 0], "time_ids": sizes}}
    expected = base.unet(LATENTS, TIMES, encoder_hidden_states=hidden, encoder_attention_mask=mask, **more).sample
    model = Personaliser(base, model_settings)
    assert (model(LATENTS, TIMES, text, sizes=sizes) - expected).abs().max() == 0
    assert (model(LATENTS, TIMES, text) - expected)[0].abs().max() > 1e-6, "the first one is no whole picture"

    def drawn(by=model, on=base, **told) -> torch.Tensor:
        pipeline = ImagineYourselfPipeline.build(by, on)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline(PROMPTS[0], seeds=[0], num_inference_steps=1, output_type="latent", **told).images

    usual = drawn()
    assert torch.equal(drawn(original_size=(64, 64), target_size=(64, 64)), usual)
    assert not torch.equal(drawn(original_size=(16, 16), crops_coords_top_left=(8, 8)), usual)
    plain, plain_settings = shaped("studio")
    with pytest.raises(UserError, match="original_size: this U-Net takes no sizes"):
        drawn(Personaliser(plain, plain_settings), plain, original_size=(64, 64))
    with pytest.raises(UserError, match="target_size: give two whole numbers"):
        drawn(target_size=(64, -1))


@torch.no_grad()
def test_sdxl_reads_two_encoders_as_diffusers_does(shaped):
    base, model_settings = shaped("sdxl")
    branch = base.text["clip"]
    for one in (branch, branch.second):
        one.tokenizer.model_max_length = branch.max_length
    theirs = StableDiffusionXLPipeline(
        base.vae,
        branch.encoder,
        branch.second.encoder,
        branch.tokenizer,
        branch.second.tokenizer,
        base.unet,
        base.scheduler,
    )
    hidden, blank, pooled, blank_pooled = theirs.encode_prompt(PROMPTS[0], device="cpu")
    ours = encode_text(base, [PROMPTS[0], ""])
    states, mask = ours["clip"]
    length = int(mask[0].sum())
    assert (states[0, :length] - hidden[0, :length]).abs().max() <= 1e-6
    assert (ours[POOLED][0][0, 0] - pooled[0]).abs().max() <= 1e-6
    assert (
        states[1].abs().max() == 0 == blank.abs().max()
        and ours[POOLED][0][1].abs().max() == 0 == blank_pooled.abs().max()
    )
    dropped = without_text(encode_text(base, PROMPTS), encode_text(base, [""]), "clip", torch.tensor([False, True]))
    assert dropped[POOLED][0][1].abs().max() == 0 < dropped[POOLED][0][0].abs().max()


def test_a_unet_and_its_text_must_fit(shaped, opened):
    (sdxl, settings_xl), (plain, settings) = shaped("sdxl"), opened
    with pytest.raises(UserError, match="takes a pooled text embedding"):
        model = Personaliser(sdxl, settings_xl)
        model.context({"clip": encode_text(sdxl, PROMPTS)["clip"]})
    with pytest.raises(UserError, match="takes no pooled text embedding"):
        Personaliser(plain, settings).context(
            encode_text(plain, PROMPTS) | {POOLED: encode_text(sdxl, PROMPTS)[POOLED]}
        )


def formula(attention, query_states, tokens, own):
    """docs/method.md §2, image by image, on unmasked tokens: W_o Σ_b α_b softmax(Q K_bᵀ/√d) V_b M_b, plus a bias."""
    processor, rows = attention.processor, []
    for i in range(len(query_states)):
        total = 0
        for name, (hidden, mask) in tokens.items():
            kept = hidden[i][mask[i]]
            if len(kept) == 0:
                continue
            k, v = (attention.to_k, attention.to_v) if name == own else (processor.key[name], processor.value[name])
            qkv = (x.chunk(attention.heads, -1) for x in (attention.to_q(query_states[i]), k(kept), v(kept)))
            heads = [(q @ k.T / math.sqrt(k.shape[1])).softmax(-1) @ v for q, k, v in zip(*qkv, strict=True)]
            if name != own:
                heads = [head @ matrix for head, matrix in zip(heads, processor.out[name], strict=True)]
            total = total + processor.alpha[name] * torch.cat(heads, -1)
        rows.append(attention.to_out[0](total))
    return torch.stack(rows)


@given(data=st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@torch.no_grad()
def test_attention_is_the_formula(model, data):
    lengths = {"clip": (1, 9), "ul2": (0, 9), "byt5": (0, 20), "vision": (0, 15)}
    torch.manual_seed(data.draw(st.integers(0, 10**6)))
    attention = data.draw(st.sampled_from(model.cross_attentions()))
    widths = {name: linear.in_features for name, linear in attention.processor.key.items()} | {"clip": 32}
    tokens, usual = {}, {name: alpha.item() for name, alpha in attention.processor.alpha.items()}
    for name in data.draw(st.sampled_from([("clip",), ("vision", "clip", "ul2", "byt5"), ("clip", "byt5")])):
        counts = torch.tensor([data.draw(st.integers(*lengths[name])) for _ in range(2)])
        tokens[name] = torch.randn(2, 24, widths[name]), torch.arange(24) < counts[:, None]
        attention.processor.alpha[name].fill_(data.draw(st.floats(-2, 2)))
    vision = Vision(*tokens["vision"]) if "vision" in tokens else None
    spatial = torch.randn(2, 20, attention.to_q.in_features)
    context = model.context({name: pair for name, pair in tokens.items() if name != "vision"}, vision)
    difference = attention(spatial, context) - formula(attention, spatial, tokens, "clip")
    for name, alpha in attention.processor.alpha.items():
        alpha.fill_(usual[name])
    assert difference.abs().max() <= 1e-5


@torch.no_grad()
def test_padding_changes_nothing(opened, model, text):
    padded = text_states(opened[0].text, PROMPTS, fixed_length=True)
    garbage = {name: (torch.where(mask[:, :, None], hidden, 1e3), mask) for name, (hidden, mask) in padded.items()}
    expected = model(LATENTS, TIMES, text, FACES, SOME)
    assert (model(LATENTS, TIMES, garbage, FACES, SOME) - expected).abs().max() <= 1e-6 * max(1, expected.abs().max())


@torch.no_grad()
def test_a_kept_context_serves_every_step(model, text):
    context = model.context(text, model.vision_tokens(FACES, SOME))
    for t in TIMES:
        assert (model.denoise(LATENTS, t, context) - model(LATENTS, t, text, FACES, SOME)).abs().max() <= 1e-6


@torch.no_grad()
def test_absent_references_count_for_nothing(model, text):
    """Row 0 has two of three references, row 1 none: as if each had been drawn with just what it has."""
    both = model(LATENTS, TIMES, text, FACES, SOME)
    rows = [{name: (hidden[i : i + 1], mask[i : i + 1]) for name, (hidden, mask) in text.items()} for i in (0, 1)]
    first = model(LATENTS[:1], TIMES[:1], rows[0], FACES[:1, :2], SOME[:1, :2])
    second = model(LATENTS[1:], TIMES[1:], rows[1])
    assert (both - torch.cat([first, second])).abs().max() <= 1e-5
    one = model(LATENTS[:1], TIMES[:1], rows[0], FACES[:1, :1], SOME[:1, :1])
    assert (first - one).abs().max() > 1e-4, "the second reference must be seen"


@pytest.mark.parametrize("kind", ["parallel", "concatenated"])
@torch.no_grad()
def test_each_place_sees_only_its_own_person(opened, text, kind):
    """Person 0 left, person 1 in the rightmost quarter, nobody between: as if each place had asked alone."""
    base, model_settings = opened
    model = trained(base, model_settings.model_copy(update={"attention": kind}))
    seen = model.vision_tokens(FACES[:, :2], torch.ones(2, 2, dtype=torch.bool))
    regions = torch.zeros(2, 2, 16, 16, dtype=torch.bool)
    regions[:, 0, :, :8], regions[:, 1, :, 12:] = True, True
    layer = model.cross_attentions()[0]
    spatial = torch.randn(2, 64, layer.to_q.in_features)
    drawn = layer(spatial, model.context(text, seen._replace(regions=regions))).unflatten(1, (8, 8))
    half = seen.mask.shape[1] // 2
    alone = [Vision(seen.tokens[:, part], seen.mask[:, part]) for part in (slice(half), slice(half, None))]
    first, second, nobody = (layer(spatial, model.context(text, one)).unflatten(1, (8, 8)) for one in (*alone, None))
    for columns, expected in ((slice(4), first), (slice(4, 6), nobody), (slice(6, 8), second)):
        assert (drawn[:, :, columns] - expected[:, :, columns]).abs().max() <= 1e-5
    everywhere = seen._replace(regions=torch.ones_like(regions))
    assert (
        layer(spatial, model.context(text, everywhere)) - layer(spatial, model.context(text, seen))
    ).abs().max() <= 1e-6


@torch.no_grad()
def test_strengths_scale_branches_and_people(model, text):
    seen = model.vision_tokens(FACES, SOME)

    def draw(vision=seen, **strength):
        return model.denoise(LATENTS, TIMES, model.context(text, vision, strength))

    usual = draw()
    assert torch.equal(draw(vision=seen, clip=1.0, ul2=1.0), usual)
    assert (draw(ul2=0.0, byt5=0.0) - model(LATENTS, TIMES, {"clip": text["clip"]}, FACES, SOME)).abs().max() <= 1e-5
    ones = torch.ones(seen.mask.shape)
    assert (draw(seen._replace(weight=ones)) - usual).abs().max() <= 1e-6
    assert (draw(seen._replace(weight=0 * ones)) - draw(None)).abs().max() <= 1e-5
    layer = model.cross_attentions()[0]
    spatial = torch.randn(2, 64, layer.to_q.in_features)
    without, once, twice = (layer(spatial, model.context(text, seen, {"vision": s})) for s in (0.0, 1.0, 2.0))
    assert (twice - without - 2 * (once - without)).abs().max() <= 1e-5


@torch.no_grad()
def test_dropped_conditions_equal_missing_ones(opened, model, text):
    base, _ = opened
    dropped, empty = torch.tensor([False, True]), encode_text(base, [""])
    seen = model.vision_tokens(FACES, torch.ones(2, 3, dtype=torch.bool))
    changed = model.context(without_text(text, empty, "clip", dropped), without_vision(seen, dropped))
    rows = model.denoise(LATENTS, TIMES, changed)
    assert (rows[1:] - model(LATENTS[1:], TIMES[1:], {"clip": empty["clip"]})).abs().max() <= 1e-5
    whole = model.denoise(LATENTS, TIMES, model.context(text, seen))
    assert (rows[:1] - whole[:1]).abs().max() <= 1e-5


def test_two_steps_change_exactly_what_is_trained(opened, text):
    base, model_settings = opened
    model = Personaliser(base, model_settings)
    before = copy.deepcopy(model.state_dict()), copy.deepcopy(base.unet.state_dict())
    optimiser = torch.optim.SGD(model.trainable_parameters(), 1.0)
    for _ in range(2):
        (100 * model(LATENTS, TIMES, text, FACES, torch.ones(2, 3, dtype=torch.bool)).square().mean()).backward()
        optimiser.step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[0][name])}
    named = {
        name
        for name, _ in model.named_parameters()
        if name.startswith("vision.") or ".processor." in name or "lora_" in name
    }
    assert moved == named == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any("attn1.to_q.lora_A" in name for name in named) and any("attn2.to_k.lora_B" in name for name in named)
    assert all(torch.equal(value, before[1][name]) for name, value in base.unet.state_dict().items())


@torch.no_grad()
def test_the_ablation_has_the_same_parameters_and_another_answer(opened, model, text):
    base, model_settings = opened
    twin = trained(base, model_settings.model_copy(update={"attention": "concatenated"}))
    assert {n: p.shape for n, p in twin.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}
    joint = twin(LATENTS, TIMES, text, FACES, SOME)
    assert joint.isfinite().all() and (joint - model(LATENTS, TIMES, text, FACES, SOME)).abs().max() > 1e-4
    only = {"clip": text["clip"]}
    assert (twin(LATENTS, TIMES, only) - model(LATENTS, TIMES, only)).abs().max() <= 1e-5, "one branch: one softmax"


@torch.no_grad()
def test_vision_keys_and_values_start_from_the_text(opened):
    model = Personaliser(*opened)
    for attention in model.cross_attentions():
        assert torch.equal(attention.processor.key["vision"].weight, attention.to_k.base_layer.weight)
        assert torch.equal(attention.processor.value["vision"].weight, attention.to_v.base_layer.weight)


def test_two_models_on_one_base_do_not_touch_each_other(opened, text):
    base, model_settings = opened
    plain, changed = Personaliser(base, model_settings), trained(base, model_settings)
    frozen, first, second = ({id(weight) for weight in part.parameters()} for part in (base.unet, plain, changed))
    assert frozen <= first & second, "frozen weights are shared"
    with torch.no_grad():
        assert (plain(LATENTS, TIMES, text) - changed(LATENTS, TIMES, text)).abs().max() > 1e-4


def test_bad_conditions_are_one_sentence(opened, model, text):
    base, model_settings = opened
    with pytest.raises(UserError, match="base's own and must be given"):
        model.context({"ul2": text["ul2"]})
    with pytest.raises(UserError, match="unknown text branch 'bert'"):
        model.context(text | {"bert": text["ul2"]})
    with pytest.raises(UserError, match="unknown branch 'bert'"):
        model.context(text, None, {"bert": 1.0})
    with pytest.raises(UserError, match="model.alpha: give one starting value"):
        Personaliser(base, model_settings.model_copy(update={"alpha": {"vision": 1.0}}))
    with pytest.raises(UserError, match=r"references must be \(B, N, 3, H, W\)"):
        model.vision_tokens(FACES[0], SOME)


def test_stacked_texts_keep_their_rows(opened):
    short, long = encode_text(opened[0], ["a"]), encode_text(opened[0], ["a much longer prompt"])
    for name, (hidden, mask) in stack([short, long]).items():
        assert mask.sum(1).tolist() == [short[name][1].sum(), long[name][1].sum()]
        assert torch.equal(hidden[0][mask[0]], short[name][0][0])


@torch.no_grad()
def test_merged_lora_draws_the_same_and_the_shared_base_is_left_alone(opened, text):
    base, model_settings = opened
    model, before = trained(base, model_settings), {name: w.clone() for name, w in base.unet.named_parameters()}
    apart = model(LATENTS, TIMES, text, FACES, SOME)
    lora.merge(model.unet)
    assert (model(LATENTS, TIMES, text, FACES, SOME) - apart).abs().max() <= 1e-5
    assert all(torch.equal(weight, before[name]) for name, weight in base.unet.named_parameters())
    lora.unmerge(model.unet)
    assert torch.equal(model(LATENTS, TIMES, text, FACES, SOME), apart)
    frozen = {id(weight) for weight in base.unet.parameters()}
    assert frozen <= {id(weight) for weight in model.parameters()}, "shared again"
