"""The pipeline draws what it is asked, a bundle the same image in a new process, and cells do not see each other."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from iy.diffusion import load_base
from iy.errors import UserError
from iy.generate import Cell, draw, redraw
from iy.model import ImagineYourselfPipeline, bundle
from tests.tiny import moved, tiny_base, tiny_params

FACE = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)
OTHER = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
ASK = {"num_inference_steps": 2, "seeds": [3], "output_type": "np"}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    torch.set_num_threads(1)
    settings = tiny_params(tiny_base(tmp_path_factory.mktemp("base"), prediction="v_prediction"))
    return load_base(settings.base), settings.model


@pytest.fixture(scope="module")
def pipeline(opened):
    base, settings = opened
    made = ImagineYourselfPipeline.build(moved(base, settings), base)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def saved(pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle") / "finetune1"
    pipeline.save_pretrained(folder, {"stage": 1, "parent": None})
    return folder


DRAW = """
import sys, hashlib, numpy as np, torch
torch.set_num_threads(1)
from iy.model import ImagineYourselfPipeline
face = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)
pipeline = ImagineYourselfPipeline.from_pretrained(sys.argv[1])
image = pipeline("a smiling man", face, num_inference_steps=2, seeds=[3], output_type="np").images
print(hashlib.sha256(image.tobytes()).hexdigest())
"""


def test_a_saved_model_draws_the_same_image_in_a_new_process(pipeline, saved, root):
    here = hashlib.sha256(pipeline("a smiling man", FACE, **ASK).images.tobytes()).hexdigest()
    command = [sys.executable, "-c", DRAW, str(saved)]
    there = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert there.stdout.split()[-1] == here


def test_a_bundle_is_json_and_safetensors_and_equal_models_give_equal_bytes(pipeline, saved, tmp_path):
    files = sorted(str(path.relative_to(saved)) for path in saved.rglob("*") if path.is_file())
    assert files == [
        "adapter.safetensors",
        "config.json",
        "lora.safetensors",
        "vision/config.json",
        "vision/model.safetensors",
    ]
    assert json.loads((saved / "config.json").read_text())["lineage"] == {"stage": 1, "parent": None}
    pipeline.save_pretrained(tmp_path / "again", {"stage": 1, "parent": None})
    assert all((saved / file).read_bytes() == (tmp_path / "again" / file).read_bytes() for file in files)


def test_a_loaded_model_trains_on(opened, pipeline, saved):
    model = bundle.load(saved, opened[0])
    for (name, loaded), kept in zip(model.named_parameters(), pipeline.model.parameters(), strict=True):
        assert torch.equal(loaded, kept) and loaded.requires_grad == kept.requires_grad, name


def test_half_precision_halves_the_bundle(opened, pipeline, saved, tmp_path):
    pipeline.save_pretrained(tmp_path / "half", fp16=True)
    assert load_file(tmp_path / "half" / "adapter.safetensors")["vision.norm.weight"].dtype == torch.float16
    model = bundle.load(tmp_path / "half", opened[0])
    assert model.dtype == torch.float32
    for loaded, kept in zip(model.parameters(), pipeline.model.parameters(), strict=True):
        torch.testing.assert_close(loaded, kept, atol=1e-3, rtol=1e-3)


def test_a_broken_bundle_is_one_sentence(opened, saved, tmp_path):
    with pytest.raises(UserError, match="is not a bundle: it has no config.json"):
        ImagineYourselfPipeline.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes((saved / "config.json").read_bytes())
    with pytest.raises(UserError, match="adapter.safetensors cannot be read"):
        bundle.load(tmp_path, opened[0])
    state = load_file(saved / "adapter.safetensors")
    del state["vision.norm.bias"]
    save_file(state, tmp_path / "adapter.safetensors")
    with pytest.raises(UserError, match="tensor 'vision.norm.bias' is missing"):
        bundle.load(tmp_path, opened[0])


def test_a_bundle_finds_its_base_beside_the_project(tmp_path, monkeypatch):
    settings = tiny_params(tiny_base(tmp_path / "weights"))
    relative = {
        name: getattr(settings.base, name).model_copy(update={"path": "weights"})
        for name in ("unet", "vae", "scheduler", "vision")
    }
    settings = settings.base.model_copy(update=relative)
    monkeypatch.chdir("/")
    found = bundle.locate(settings, tmp_path / "models" / "tiny" / "finetune1")
    assert found.unet.path == str(tmp_path / "weights")


def test_every_form_of_a_reference_is_the_same_reference(pipeline, tmp_path):
    Image.fromarray(FACE).save(tmp_path / "me.png")
    tensor = torch.from_numpy(FACE).permute(2, 0, 1) / 255
    forms = [FACE, Image.fromarray(FACE), tmp_path / "me.png", tensor, FACE / 255.0, [FACE]]
    images = [pipeline("a man", form, **ASK).images for form in forms]
    assert all(np.array_equal(image, images[0]) for image in images)
    assert not np.array_equal(images[0], pipeline("a man", OTHER, **ASK).images)
    assert not np.array_equal(images[0], pipeline("a man", [FACE, OTHER], **ASK).images), "a second person must be seen"
    assert np.array_equal(images[0], pipeline("a man", OTHER, face_cropper=lambda image: FACE, **ASK).images)


def test_people_have_strengths_and_places(pipeline):
    """Two people: strengths of 0 leave them out, boxes and masks say the same, the other half is untouched."""
    both, left = [FACE, OTHER], np.zeros((64, 64))
    left[:, :32] = 1
    usual = pipeline("two men", both, **ASK).images
    assert np.array_equal(pipeline("two men", both, person_strength=[1, 1], **ASK).images, usual)
    assert not np.array_equal(pipeline("two men", both, person_strength=[1, 0.5], **ASK).images, usual)
    nobody = pipeline("two men", both, person_strength=[0, 0], identity_guidance_scale=0.0, **ASK).images
    assert (
        np.abs(
            nobody - pipeline("two men", both, branch_strength={"vision": 0}, identity_guidance_scale=0.0, **ASK).images
        ).max()
        <= 1e-5
    )
    boxes = [(0, 0, 0.5, 1), (0.5, 0, 1, 1)]
    placed = pipeline("two men", both, regions=boxes, **ASK).images
    assert np.array_equal(
        placed, pipeline("two men", both, regions=[left, Image.fromarray(np.uint8(255 * (1 - left)))], **ASK).images
    )
    assert not np.array_equal(placed, usual)
    twice = pipeline("two men", both, regions=boxes, num_images_per_prompt=2, **ASK | {"seeds": [3, 3]}).images
    assert np.abs(twice - placed).max() <= 1e-5


def test_guidance_is_the_stated_formula(pipeline, opened):
    """One step of guided denoising against its three parts, drawn apart."""
    from iy.diffusion import encode_text
    from iy.model.guidance import plan

    base, model = opened[0], pipeline.model
    latents, t = torch.randn(1, 4, 16, 16), torch.tensor(500)
    text, empty = encode_text(base, ["a man"]), encode_text(base, [""])
    blank = {name: (h, m if name == "clip" else m & False) for name, (h, m) in empty.items()}
    with torch.no_grad():
        faces = model.vision_tokens(torch.rand(1, 1, 3, 32, 32), torch.ones(1, 1, dtype=torch.bool))
        none, words, full = (
            model.denoise(latents, t, model.context(*parts))
            for parts in (({"clip": empty["clip"]},), (text,), (text, faces))
        )
        for g_text, g_id, evaluations in ((3.0, 1.5, 3), (3.0, 3.0, 2), (1.0, 1.0, 1), (1.0, 2.0, 2)):
            guide = plan(model, text, blank, faces, g_text, g_id, 0)
            expected = none + g_text * (words - none) + g_id * (full - words)
            assert len(guide.weights) == evaluations
            assert (guide.denoise(model, latents, t) - expected).abs().max() <= 1e-5
        guided = plan(model, text, blank, faces, 5, 5, 1.0).denoise(model, latents, t)
    assert abs(guided.std() - full.std()) <= 1e-5


def test_each_image_comes_from_its_own_seed(pipeline):
    both = pipeline(["a man", "a woman"], FACE, num_inference_steps=2, seeds=[3, 4], output_type="np").images
    assert np.abs(both[0] - pipeline("a man", FACE, **ASK).images[0]).max() <= 1e-4
    twice = pipeline("a man", FACE, num_images_per_prompt=2, **ASK | {"seeds": [3, 3]}).images
    assert np.array_equal(twice[0], twice[1])


def test_the_negative_prompt_latents_sizes_and_callback_count(pipeline):
    plain = pipeline("a man", FACE, **ASK).images
    assert not np.array_equal(plain, pipeline("a man", FACE, negative_prompt="a hat", **ASK).images)
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    given = pipeline("a man", FACE, latents=noise, num_inference_steps=2, output_type="np").images
    assert np.array_equal(plain, given)
    assert pipeline("a man", height=32, width=96, **ASK).images.shape == (1, 32, 96, 3)
    seen = []
    note = lambda pipe, i, t, state: seen.append((i, state["latents"].shape))
    pipeline("a man", FACE, callback_on_step_end=note, **ASK)
    assert seen == [(0, (1, 4, 16, 16)), (1, (1, 4, 16, 16))]
    raw = ASK | {"output_type": "latent"}
    latents = pipeline("a man", FACE, **raw).images
    stopped = pipeline("a man", FACE, callback_on_step_end=lambda *_: {"latents": noise}, **raw)
    assert latents.shape == (1, 4, 16, 16) and torch.equal(stopped.images, noise)


def test_redrawing_little_changes_little(pipeline):
    start = pipeline("a man", FACE, num_inference_steps=4, seeds=[1], output_type="latent").images
    from iy.diffusion import vae_decode

    image = Image.fromarray(((vae_decode(pipeline.vae, start)[0].permute(1, 2, 0) + 1) * 127.5).byte().numpy())
    shared = {"num_inference_steps": 20, "seeds": [2], "output_type": "latent", "image": image, "guidance_scale": 1.0}
    clean = pipeline("a man", FACE, strength=0.05, **shared).images
    far = pipeline("a man", FACE, strength=0.9, **shared).images
    from iy.diffusion import to_pixels, vae_encode

    origin = vae_encode(pipeline.vae, to_pixels([np.asarray(image)]))
    assert (clean - origin).square().mean() < (far - origin).square().mean()


def test_cells_do_not_see_each_other(pipeline):
    cells = [Cell("a man " * (i + 1), None if i == 2 else FACE, i) for i in range(4)]
    options = {"steps": 2, "guidance": 3.0, "identity_guidance": 1.5, "batch": 3}
    together = draw(pipeline, cells, **options)
    assert all(image.shape == (64, 64, 3) and image.dtype == np.uint8 for image in together)
    for cell, image in zip(cells, together, strict=True):
        assert np.array_equal(draw(pipeline, [cell], **options)[0], image)
    again = redraw(pipeline, cells, together, strength=0.5, **options)
    assert np.array_equal(redraw(pipeline, cells[3:], together[3:], strength=0.5, **options)[0], again[3])
    assert draw(pipeline, [], **options) == []


@pytest.mark.parametrize(
    "ask, message",
    [
        ({"prompt": 3}, "prompt must be a text"),
        ({"prompt": ["a", "b"], "reference": [FACE]}, "reference: give one picture, or one entry per prompt; 1 for 2"),
        ({"prompt": "a", "reference": np.zeros((4, 4))}, r"array \(H, W, 3\)"),
        ({"prompt": "a", "reference": "nowhere.png"}, "nowhere.png"),
        ({"prompt": "a", "height": 63}, "multiples of"),
        ({"prompt": "a", "strength": 0.0}, "strength must lie"),
        ({"prompt": "a", "output_type": "gif"}, "output_type must be"),
        ({"prompt": "a", "seeds": [1, 2]}, "2 for 1 images"),
        ({"prompt": "a", "latents": torch.zeros(1, 4, 8, 8)}, "latents must be"),
        ({"prompt": "a", "branch_strength": {"bert": 1}}, "unknown branch 'bert'"),
        ({"prompt": "a", "reference": [FACE], "person_strength": [1, 2]}, "2 entries for 1 references"),
        ({"prompt": "a", "reference": [FACE], "regions": [(0, 0, 2, 1)]}, "a box is"),
        ({"prompt": "a", "reference": [FACE], "regions": [np.zeros((8, 8, 3))]}, "a mask is"),
        ({"prompt": "a", "reference": [FACE], "regions": [np.zeros((8, 8))]}, "number 1 covers nothing"),
    ],
)
def test_bad_input_is_one_sentence(pipeline, ask, message):
    with pytest.raises(UserError, match=message):
        pipeline(**ask)


def test_kept_embeddings_draw_the_same_picture_without_the_encoders(pipeline, opened):
    face, ask = FACE, dict(num_inference_steps=2, seeds=[3], output_type="np", fixed_length=True)
    right = pipeline("a smiling man", face, negative_prompt="blurry", **ask).images
    words = pipeline.encode_prompt("a smiling man", fixed_length=True)
    away = pipeline.encode_negative("blurry", fixed_length=True)
    seen = pipeline.encode_reference(face)
    ask.pop("fixed_length")
    light = type(pipeline).build(pipeline.model, opened[0])
    light.free_text()
    kept = light(prompt_embeds=words, negative_prompt_embeds=away, reference_embeds=seen, **ask).images
    assert np.abs(kept - right).max() <= 1e-5
    with pytest.raises(UserError, match="the text encoders were freed"):
        light("a smiling man", face)
    many = light(
        prompt_embeds={name: (h.repeat(2, 1, 1), m.repeat(2, 1)) for name, (h, m) in words.items()},
        negative_prompt_embeds=away,
        reference_embeds=seen,
        **ask | {"seeds": [3, 4]},
    ).images
    assert many.shape[0] == 2 and np.abs(many[0] - kept[0]).max() < 1e-4 < np.abs(many[1] - kept[0]).max()


def test_embeddings_that_do_not_fit_are_one_sentence(pipeline):
    words = pipeline.encode_prompt("a man")
    seen = pipeline.encode_reference(FACE)
    half = {name: (hidden.half(), mask) for name, (hidden, mask) in words.items()}
    far = {name: (hidden.to("meta"), mask) for name, (hidden, mask) in words.items()}
    for options, message in [
        (dict(), "give prompt or prompt_embeds"),
        (dict(prompt="a", prompt_embeds=words), "give prompt or prompt_embeds"),
        (dict(prompt_embeds=half), "prompt_embeds: branch '.*' is float16, the model float32"),
        (dict(prompt_embeds=far), "prompt_embeds: branch '.*' is on meta, the model on cpu"),
        (dict(prompt_embeds={"ul2": words["ul2"]}), "the base's own text branch 'clip' is missing"),
        (dict(prompt="a", negative_prompt="b", negative_prompt_embeds=words), "not both"),
        (dict(prompt="a", reference=FACE, reference_embeds=seen), "give one or the other"),
        (
            dict(prompt=["a", "b", "c"], reference_embeds=seen.map(lambda x: x.repeat_interleave(2, 0))),
            "2 rows for 3 prompts",
        ),
    ]:
        with pytest.raises(UserError, match=message):
            pipeline(**options)


@torch.no_grad()
def test_the_denoising_step_compiles_into_one_graph(pipeline, opened):
    from iy.diffusion import encode_text

    model, generator = pipeline.model, torch.Generator().manual_seed(0)
    latents, t = torch.randn(1, 4, 16, 16, generator=generator), torch.tensor([300])
    vision = pipeline.encode_reference(FACE)
    context = model.context(encode_text(opened[0], ["a man"]), vision)
    step = torch.compile(model.denoise, fullgraph=True, backend="aot_eager")  # a break in the graph is an error
    torch.testing.assert_close(step(latents, t, context), model.denoise(latents, t, context), atol=1e-5, rtol=1e-5)


def test_images_are_decoded_in_slices_and_tiles_when_asked(pipeline):
    ask = dict(num_inference_steps=2, seeds=[1, 2], output_type="np")
    whole = pipeline(["a man", "a woman"], **ask).images
    pipeline.vae.enable_slicing()
    try:
        assert np.abs(pipeline(["a man", "a woman"], **ask).images - whole).max() <= 1e-5
    finally:
        pipeline.vae.disable_slicing()
    pipeline.vae.enable_tiling()
    try:
        large = pipeline("a man", height=128, width=128, num_inference_steps=1, seeds=[1], output_type="np").images
    finally:
        pipeline.vae.disable_tiling()
    assert large.shape == (1, 128, 128, 3) and np.isfinite(large).all()
