"""Generators and refiners beside the bundle: diffusers' and insightface's own classes on tiny random weights."""

import logging
import shutil
from pathlib import Path

import diffusers
import numpy as np
import onnx
import pytest
import torch
import transformers
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file, save_file

from iy import faces, params, records
from iy.errors import UserError
from iy.faces import weights
from iy.generate import Cell, draw, in_batches
from iy.synpairs import models, page
from iy.synpairs.generators import load_generator, squared
from iy.synpairs.plan import Plan
from iy.synpairs.refiners import load_refiner
from iy.synpairs.rewriters import Rewrite
from tests import tiny
from tests.att_faces import att
from tests.pairs import files

CLASSES = {"studio": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline"}
EMBEDDING, SIDE = 512, 128  # what inswapper takes: a face as so many numbers, its crop in pixels


@pytest.fixture(scope="module", params=CLASSES)
def published(request, tmp_path_factory):
    """A text-to-image pipeline as diffusers saves it, and an IP-Adapter for it with its own image encoder."""
    folder = tmp_path_factory.mktemp(request.param)
    save_pipeline(folder / "pipeline", request.param)
    save_adapter(folder / "adapter" / "models", request.param)
    return folder, CLASSES[request.param]


def save_pipeline(folder: Path, like: str) -> None:
    torch.manual_seed(0)
    parts, tokenizer = tiny.encoders(), tiny.tokenizers()["clip"]
    tokenizer.model_max_length = 77
    encoder = transformers.CLIPTextModel(parts["text_clip"].config)
    made = dict(vae=tiny.vae(), unet=tiny.unet(like), text_encoder=encoder, tokenizer=tokenizer)
    made["scheduler"] = diffusers.DDIMScheduler(steps_offset=1, clip_sample=False)
    if like == "sdxl":
        second = tiny.clip_text(tiny.SECOND, 20)
        pipeline = diffusers.StableDiffusionXLPipeline(**made, text_encoder_2=second, tokenizer_2=tokenizer)
    else:
        pipeline = diffusers.StableDiffusionPipeline(
            **made, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    pipeline.save_pretrained(folder)


def save_adapter(folder: Path, like: str) -> None:
    """In the published layout: the numbers count every attention layer, self-attention included."""
    torch.manual_seed(1)
    unet, encoder = tiny.unet(like), tiny.vision()
    cross, seen = unet.config.cross_attention_dim, encoder.config.projection_dim
    found = {"image_proj.proj.weight": torch.randn(4 * cross, seen), "image_proj.proj.bias": torch.zeros(4 * cross)}
    found |= {"image_proj.norm.weight": torch.ones(cross), "image_proj.norm.bias": torch.zeros(cross)}
    modules = dict(unet.named_modules())
    for number, name in enumerate(unet.attn_processors):
        if "attn2" in name:
            wide = modules[name.removesuffix(".processor")].to_q.out_features
            for part in "kv":
                found[f"ip_adapter.{number}.to_{part}_ip.weight"] = torch.randn(wide, cross)
    encoder.save_pretrained(folder / "image_encoder")
    save_file(found, folder / "adapter.safetensors")


def settings(folder: Path, cls: str, **changes) -> params.Params:
    """Drawn by the pipeline, refined by the adapter on it, but for `changes` of the synpairs section."""
    value = tiny.tiny_settings(Path("nowhere"))
    value["synpairs"] |= {
        "generator": {"class": cls, "path": str(folder / "pipeline")},
        "start": "text",
        "refiner": "ip_adapter",
        "refiner_model": adapter(folder),
        "steps": 4,
        "passes": 2,
        "batch": 2,
    }
    value["synpairs"] |= changes
    return params.parse(value, "test")


def adapter(folder: Path, **changes) -> dict:
    published = {"path": str(folder / "adapter"), "weights": "models/adapter.safetensors"}
    return published | {"image_encoder": "models/image_encoder", "scale": 1.0, "pipeline": None} | changes


def planned(*texts: str) -> list[Plan]:
    return [Plan({"embedding": []}, i, 7 + i, Rewrite(text, [], None)) for i, text in enumerate(texts)]


def crops(count: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), np.uint8))


def load(chosen: params.Params, analyser=None):
    models.require(chosen)
    generator = load_generator(chosen, None, "cpu")
    return generator, load_refiner(chosen, None, generator, analyser, "cpu")


def same(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def furthest(one, other) -> int:
    return max(int(np.abs(a.astype(int) - b).max()) for a, b in zip(one, other, strict=True))


PLANS = planned("a calm man", "a woman, laughing", "an old man, facing left")


def test_a_generator_draws_the_caption_from_the_seed_and_sees_no_reference(published):
    generator, _ = load(settings(*published))
    drawn = generator.draw(PLANS, crops(3))
    assert all(image.shape == (64, 64, 3) and image.dtype == np.uint8 for image in drawn)
    assert same(drawn, generator.draw(PLANS, crops(3, seed=1)))
    reworded = Plan({}, 0, PLANS[0].seed, Rewrite("a robot", [], None))
    reseeded = Plan({}, 0, 99, PLANS[0].rewrite)
    for changed in (reworded, reseeded):
        again = generator.draw([changed, *PLANS[1:]], crops(3))
        assert not np.array_equal(again[0], drawn[0]) and same(again[1:], drawn[1:])


def test_an_adapter_follows_the_reference_and_leaves_the_generator_as_it_was(published):
    generator, refiner = load(settings(*published))
    drawn = generator.draw(PLANS, crops(3))
    refined = refiner.refine(PLANS, crops(3), drawn, 1)
    assert same(refined, refiner.refine(PLANS, crops(3), drawn, 1)), "the same seed, the same picture"
    other = refiner.refine(PLANS, crops(3)[:2] + crops(1, seed=5), drawn, 1)
    assert same(other[:2], refined[:2]) and furthest(other[2:], refined[2:]) > 5
    assert not same(refiner.refine(PLANS, crops(3), drawn, 2), refined), "every pass has noise of its own"
    assert not same(refiner.refine(PLANS, crops(3), crops(3), 1), refined), "it starts from the picture"
    assert same(generator.draw(PLANS, crops(3)), drawn)


def test_an_adapter_without_weight_or_guidance_takes_part_as_far_as_asked(published):
    folder, cls = published
    _, silent = load(settings(folder, cls, refiner_model=adapter(folder, scale=0.0)))
    assert same(*(silent.refine(PLANS, crops(3, seed), crops(3), 1) for seed in (1, 2)))
    _, unguided = load(settings(folder, cls, guidance=1.0))
    assert not same(*(unguided.refine(PLANS, crops(3, seed), crops(3), 1) for seed in (1, 2)))


def test_an_adapter_may_go_on_a_pipeline_that_does_not_draw(published):
    folder, cls = published
    own = adapter(folder, pipeline={"class": cls, "path": str(folder / "pipeline")})
    (_, apart), (_, together) = (load(settings(folder, cls, refiner_model=model)) for model in (own, adapter(folder)))
    assert same(*(refiner.refine(PLANS, crops(3), crops(3), 1) for refiner in (apart, together)))


def test_pictures_do_not_see_each_other_and_hardly_the_size_of_their_batch(published):
    generator, refiner = load(settings(*published))
    drawn = generator.draw(PLANS, crops(3))
    refined = refiner.refine(PLANS, crops(3), drawn, 1)
    assert same(generator.draw(PLANS[2:], crops(1)), drawn[2:])
    assert same(refiner.refine(PLANS[2:], crops(3)[2:], drawn[2:], 1), refined[2:])
    for batch in (1, 3):
        generator, refiner = load(settings(*published, batch=batch))
        assert furthest(generator.draw(PLANS, crops(3)), drawn) <= 1, "rounding, at most"
        assert furthest(refiner.refine(PLANS, crops(3), drawn, 1), refined) <= 1


class Small:
    """A pipeline on a device that holds two pictures; a picture is as grey as its seed."""

    def __init__(self, holds):
        self.holds, self.asked = holds, []

    def set_progress_bar_config(self, disable):
        assert disable

    def __call__(self, prompts, *, seeds, **_):
        self.asked.append(len(prompts))
        if len(prompts) > self.holds:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return diffusers.ImagePipelineOutput(images=[np.full((4, 4, 3), seed, np.uint8) for seed in seeds])


def test_a_batch_that_memory_does_not_hold_is_halved_once_for_all(caplog):
    cells, pipeline = [Cell("a man", None, seed) for seed in range(11)], Small(holds=2)
    options = {"steps": 2, "guidance": 3.0, "identity_guidance": 3.0, "batch": 8}
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert [int(image[0, 0, 0]) for image in draw(pipeline, cells, **options)] == list(range(11))
    assert pipeline.asked == [8, 4] + [2] * 12, "filled up, and not tried again"
    assert [record.args for record in caplog.records] == [(8, 4), (4, 2)]
    with pytest.raises(UserError, match="memory does not hold one picture"):
        draw(Small(holds=0), cells, **options)


def test_what_was_drawn_before_memory_ran_out_is_kept():
    holds, asked = iter([4, 4, 2, 2, 2, 2, 2]), []

    def batch(rows):
        asked.append(rows)
        if len(rows) > next(holds):
            raise torch.OutOfMemoryError
        return [np.array([row]) for row in rows]

    drawn = in_batches(Small(0), [range(4), range(4, 9)], 4, batch, None)
    assert {row: int(image[0]) for row, image in drawn.items()} == {row: row for row in range(9)}
    assert asked == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 8, 8, 8], [8, 8]]


def inswapper(path: Path, takes: int = EMBEDDING) -> Path:
    """A network of inswapper's signature: the crop, half tinted in a colour that the face's numbers decide."""
    rng = np.random.default_rng(3)
    constants = {"colours": rng.normal(0, 3, (takes, 3)), "half": np.full(1, 0.5), "emap": np.eye(takes)}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["source", "colours"], ["mixed"]),
            helper.make_node("Sigmoid", ["mixed"], ["colour"]),
            helper.make_node("Unsqueeze", ["colour", "axes"], ["tint"]),
            helper.make_node("Add", ["target", "tint"], ["both"]),
            helper.make_node("Mul", ["both", "half"], ["output"]),
        ],
        "inswapper",
        [
            helper.make_tensor_value_info("target", TensorProto.FLOAT, [1, 3, SIDE, SIDE]),
            helper.make_tensor_value_info("source", TensorProto.FLOAT, [1, takes]),
        ],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [numpy_helper.from_array(np.array([2, 3]), "axes")]
        + [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def pack():
    """The analyser of the pinned pack, whose recogniser gives 512 numbers."""
    if not (weights.present("scrfd") and weights.present("fr_feature")):
        pytest.skip(f"face weights not fetched: {weights.COMMAND}")
    return faces.load_analyser(pack_settings(), "research")


def pack_settings() -> params.Faces:
    return params.Faces(
        analyser="insightface", pack=str(weights.folder() / weights.PACK), minimum_score=0.5, embed_size=None
    )


def swapping(path: Path) -> params.Params:
    chosen = settings(Path("x"), "", generator=None, refiner="inswapper", refiner_model=str(path))
    return chosen.model_copy(update={"faces": pack_settings()})


def portrait(person: int, photo: int, margin: int) -> np.ndarray:
    """An AT&T face of 160 pixels in a grey frame."""
    around = [(margin, margin), (margin, margin), (0, 0)]
    return np.pad(squared(att(person, photo), 160), around, constant_values=90)


def embedded(pack, person: int) -> dict:
    image = att(person, 1)
    return {"embedding": pack.embed(image, pack.detect(image)[0]).tolist()}


def test_a_swapper_changes_the_face_by_the_reference_and_nothing_around_it(pack, tmp_path):
    _, refiner = load(swapping(inswapper(tmp_path / "small.onnx")), pack)
    picture = portrait(1, 2, margin=160)
    [face] = pack.detect(picture)
    rewritten = Rewrite("a man", [], None)
    one, other = (Plan(embedded(pack, person), 0, 1, rewritten) for person in (5, 9))
    swapped, again, another = refiner.refine([one, one, other], crops(3), [picture] * 3, 1)
    assert same([swapped], [again]) and not same([swapped], [another])
    x0, y0, x1, y1 = face.box.round().astype(int)
    changed = np.abs(swapped.astype(int) - picture).max(-1)
    assert changed[(y0 + y1) // 2, (x0 + x1) // 2] > 10
    wide, high = (x1 - x0) // 2, (y1 - y0) // 2
    changed[y0 - high : y1 + high, x0 - wide : x1 + wide] = 0
    assert changed.max() == 0 and 16 * high * wide < changed.size, "most of the picture lies around it"
    blank = np.full((256, 256, 3), 90, np.uint8)
    assert same(refiner.refine([one], crops(1), [blank], 1), [blank]), "no face, no change"


def test_colours_keep_their_channels_through_the_swapper(pack, tmp_path):
    """A network that gives back its crop leaves the picture as it was, up to the crop's resolution, to its very edges."""
    path = inswapper(tmp_path / "small.onnx")
    model = onnx.load(path)
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("Identity", ["target"], ["output"]))
    onnx.save(model, path)
    _, refiner = load(swapping(path), pack)
    picture = (portrait(1, 2, margin=0) * np.array([1.0, 0.8, 0.6])).astype(np.uint8)
    [kept] = refiner.refine([Plan(embedded(pack, 5), 0, 1, PLANS[0].rewrite)], crops(1), [picture], 1)
    difference = np.abs(kept.astype(int) - picture)
    assert 0 < difference.mean() < 2 and max(difference[0].mean(), difference[-1].mean()) < 2


def test_a_swapper_that_is_not_allowed_or_not_fitting_is_one_sentence(pack, tmp_path):
    chosen = swapping(inswapper(tmp_path / "small.onnx"))
    refused(chosen.model_copy(update={"usage": "commercial"}), "commercial does not allow synpairs.refiner: inswapper")
    opened = chosen.faces.model_copy(update={"analyser": "open"})
    refused(chosen.model_copy(update={"faces": opened}), "inswapper needs.*faces.analyser: insightface")
    refused(swapping(tmp_path / "none.onnx"), "synpairs.refiner_model: .*none.onnx is not a file")
    (tmp_path / "text.onnx").write_text("no network")
    refused(swapping(tmp_path / "text.onnx"), "text.onnx cannot be opened by insightface", pack)
    recogniser = weights.path("fr_feature")
    refused(swapping(recogniser), "fr_feature.onnx is not inswapper's network", pack)
    refused(swapping(inswapper(tmp_path / "other.onnx", takes=128)), "faces as 128 numbers.* 512", pack)


def refused(chosen: params.Params, says: str, analyser=None) -> None:
    with pytest.raises(UserError, match=says) as caught:
        load(chosen, analyser)
    assert "\n" not in str(caught.value)


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


def chosen_of(project: params.Params, published, **changes) -> params.Params:
    """`tiny_project`, drawn and refined by what is `published`."""
    theirs = settings(*published, **changes).synpairs
    kept = {name: getattr(project.synpairs, name) for name in ("pairs_per_person", "false_match_rate")}
    return project.model_copy(update={"synpairs": theirs.model_copy(update=kept)})


def test_the_whole_stage_draws_and_refines_without_the_bundle(published, tiny_project):
    from iy.synpairs.run import run

    shutil.rmtree(tiny_project.bundle_dir(1))
    chosen = chosen_of(tiny_project, published)
    run(chosen)
    first = files(chosen)
    rows = records.read(chosen.data_dir("synpairs") / "pairs.parquet", records.PAIR)
    assert len(rows) == 6 and all(row["similarity"] == [None] * 3 for row in rows), "before, and two passes"
    assert {row["model"] for row in rows} == {models.identity(chosen)}
    html = (chosen.report_dir("synpairs") / "index.html").read_text()
    assert f"Drawn by {published[1]}" in html and "refined by ip_adapter" in html
    run(chosen)
    assert files(chosen) == first


@pytest.mark.parametrize("published", ["studio"], indirect=True)
def test_a_stage_without_a_refiner_judges_the_first_picture_alone(published, tiny_project):
    from iy.synpairs.run import run

    chosen = chosen_of(tiny_project, published, refiner="none", refiner_model=None)
    run(chosen)
    rows = records.read(chosen.data_dir("synpairs") / "pairs.parquet", records.PAIR)
    assert all(len(row["similarity"]) == 1 for row in rows)
    html = (chosen.report_dir("synpairs") / "index.html").read_text()
    assert "refined by nothing" in html and "pass 1" not in html


@pytest.mark.parametrize("published", ["studio"], indirect=True)
def test_the_bundle_refines_what_a_generator_drew(published, tiny_project):
    from iy.synpairs.run import run

    chosen = chosen_of(tiny_project, published, refiner="bundle", refiner_model=None)
    run(chosen)
    rows = records.read(chosen.data_dir("synpairs") / "pairs.parquet", records.PAIR)
    bundle = models.identity(tiny_project)
    assert {row["model"] for row in rows} == {f"{models.pipeline_name(chosen.synpairs.generator)} + {bundle}"}
    assert len(bundle) == 64 and all(len(row["similarity"]) == 3 for row in rows)


def test_what_changed_in_a_folder_changes_the_name_of_what_drew(published, tmp_path):
    folder, cls = published
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    chosen = settings(tmp_path, cls)
    names = [models.identity(chosen)]
    in_adapter = ("adapter.safetensors", "image_encoder/config.json")
    for file in ("pipeline/unet/config.json", *(f"adapter/models/{name}" for name in in_adapter)):
        with open(tmp_path / file, "ab") as opened:
            opened.write(b" ")
        names.append(models.identity(chosen))
    assert len(set(names)) == 4
    hub = settings(
        tmp_path, cls, generator={"class": cls, "path": "somebody/model"}, refiner="none", refiner_model=None
    )
    assert models.identity(hub) == f"{cls}@somebody/model"


def test_the_gain_of_a_pass_is_over_pairs_whose_face_was_found_in_both():
    rows = [{"similarity": one, "kept_pass": 0} for one in ([0.2, 0.5], [None, 0.9], [0.4, 0.5], [0.3, None])]
    before, after = page.by_pass(rows)
    assert before["gain"] == 0 and after["gain"] == pytest.approx(0.2)
