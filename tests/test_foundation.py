"""The recipe that makes the shipped weights, on toy data: what is trained, read back, and kept apart."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from foundation import (
    autoencoder,
    language,
    probes,
    quality,
    recipe,
    recogniser,
    renders,
    sight,
    unet,
)
from foundation.recipe import WORKERS
from foundation.train import Plan, fit
from iy import lexicon, params
from iy.diffusion import load_base
from iy.evaluate.probes import READS, ProbeNet, Probes, mirror
from iy.model import Personaliser
from tests.depth import THOROUGH
from tests.toys import lesson, toy

WEIGHTS = Path(__file__).parents[1] / "weights" / "studio"


def test_the_foundations_people_are_never_the_photo_sources():
    with pytest.raises(AssertionError):
        renders.render(Path("nowhere"), renders.FIRST_RESERVED - 1, 2, 1, WORKERS)


def test_reduced_photos_are_the_mean_of_four_pixels():
    made = toy(1, 1)
    mean = made.photos[0].astype(float).reshape(64, 2, 64, 2, 3).mean((1, 3))
    assert made.images.shape == (1, 64, 64, 3) and np.abs(made.images[0] - mean).max() <= 0.5
    assert made.shots == 1 and toy(3, 2).shots == 2


def test_neighbours_are_photographed_alike():
    jobs, alike = renders.jobs(4, 4, 3), toy(4, 3).twins
    assert alike.tolist() == [3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8]
    for (person, shot), twin in zip(jobs, alike, strict=True):
        assert jobs[twin][1] == shot and jobs[twin][0] != person
    assert len({json.dumps(shot.attributes(), sort_keys=True) for _, shot in jobs}) == 6
    assert toy(3, 2).twins.tolist() == [2, 3, 0, 1, 4, 5], "the last one has nobody"


def test_a_person_points_away_from_the_mean_of_all_and_unseen_faces_do_not_count():
    made, rng = toy(), np.random.default_rng(1)
    vectors = rng.normal(size=(6, 128)).astype(np.float32) + 5
    box = np.zeros((6, 4), np.float32)
    box[1] = np.nan
    where = recogniser.people(made, renders.Faces(np.zeros(0), box, np.zeros(0), vectors))
    np.testing.assert_allclose(np.linalg.norm(where, axis=1), 1, atol=1e-6)
    own = np.stack([vectors[0], vectors[2:4].mean(0), vectors[4:].mean(0)])
    own -= own.mean(0)
    assert (where @ (own / np.linalg.norm(own, axis=1, keepdims=True)).T).diagonal().min() > 0.999


def test_people_are_told_apart_by_distance_and_unseen_faces_do_not_count():
    rng = np.random.default_rng(0)
    centres = np.repeat(rng.normal(size=(60, 8)), 3, 0)
    box = np.zeros((180, 4))
    box[0] = np.nan
    clear = quality.told_apart(box, centres + 0.01 * rng.normal(size=centres.shape), 3)
    assert clear["auc"] == clear["rank1_of_50"] == 1 and clear["faces_found"] == round(179 / 180, 4)
    assert clear["median_distance_same"] < 0.1 < clear["median_distance_different"]
    blurred = quality.told_apart(box, 0 * centres + rng.normal(size=centres.shape), 3)
    assert 0.4 < blurred["auc"] < 0.6 and blurred["rank1_of_50"] < 0.2


def test_asked_combinations_are_new_and_the_same_every_time():
    known = quality.combinations([])[:200]
    asked = quality.combinations(known)
    assert len(asked) == quality.IMAGES and not {tuple(a.values()) for a in asked} & {tuple(k.values()) for k in known}
    assert asked == quality.combinations(known)


def test_a_part_that_is_done_is_read_back_and_an_unfinished_one_goes_on(tmp_path):
    wanted, seen = torch.tensor([1.0, -2.0]), []

    def training(stop: int | None = None):
        layer = torch.nn.Linear(2, 1, bias=False)
        torch.nn.init.zeros_(layer.weight)

        def loss(step: int) -> torch.Tensor:
            seen.append(step)
            if step == stop:
                raise KeyboardInterrupt
            return (layer.weight[0] - wanted).square().sum()

        return layer, loss

    layer, loss = training()
    fit(Plan("line", tmp_path, 300, 0.05), layer, loss)
    torch.testing.assert_close(layer.weight[0].detach(), wanted, atol=0.2, rtol=0)
    again, loss = training(stop=0)
    fit(Plan("line", tmp_path, 300, 0.05), again, loss)
    assert torch.equal(again.weight, layer.weight), "no step was taken"


def test_weights_named_so_learn_three_times_as_fast(tmp_path):
    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.slow, self.quick = (torch.nn.Parameter(torch.zeros(4)) for _ in range(2))

    def one_step(fast: str | None) -> Two:
        two = Two()
        plan = Plan(f"two {fast}", tmp_path, 1, 0.1)
        return fit(plan, two, lambda step: (two.slow - 1).square().sum() + (two.quick - 1).square().sum(), fast=fast)

    plain, fast = one_step(None), one_step("quick")
    torch.testing.assert_close(plain.quick, plain.slow)
    torch.testing.assert_close(fast.slow, plain.slow)
    torch.testing.assert_close(fast.quick, 3 * plain.slow)


def test_traits_tell_people_apart_on_one_scale():
    some, again = sight.traits(np.arange(40)), sight.traits(np.arange(40))
    np.testing.assert_array_equal(some, again)
    np.testing.assert_allclose(some.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(some.std(0), 1, atol=1e-4)
    far = np.linalg.norm(some[:, None] - some[None], axis=2) + 1e9 * np.eye(40)
    assert some.shape[1] > 100 and far.min() > 3


@pytest.mark.skipif(not THOROUGH, reason="a recipe that ran: IY_THOROUGH=1")
def test_the_tower_learns_to_see_what_a_person_is_made_of(tmp_path, monkeypatch):
    """Three people whose crops differ in one shade: nothing else can tell the traits."""
    torch.set_num_threads(1)
    monkeypatch.setattr(sight, "CROPS", 6)
    monkeypatch.setattr(sight, "PICTURES", 2)
    made = toy()
    shades = np.repeat(np.uint8([20, 120, 220]), 2)
    crops = np.tile(shades[:, None, None, None], (1, 64, 64, 3))
    boxes = np.tile(np.float32([16, 16, 48, 48]), (6, 1))
    found = renders.Faces(crops, boxes, lesson(6).landmarks, np.zeros((6, 128), np.float32))
    known = torch.from_numpy(sight.traits(np.unique(made.person)))

    def words(rows, rng):
        return torch.nn.functional.one_hot(torch.from_numpy(rows), language.WIDTH).float()

    def unexplained(steps: int) -> float:
        plan = Plan(f"sight{steps}", tmp_path, steps, 1e-2)
        tower = sight.train(language.clip_vision(0), made, found, np.eye(3, 128, dtype=np.float32), words, plan)
        net = sight.Sight(tower, known.shape[1])
        net.load_state_dict(load_file(tmp_path / f"sight{steps}.safetensors"))
        with torch.no_grad():
            return float((net.eval()(autoencoder.pixels(crops))[0] - known.repeat_interleave(2, 0)).square().mean())

    assert unexplained(60) < 0.3 < 0.7 < unexplained(2)


def test_the_autoencoder_learns_and_its_latents_have_unit_variance(tmp_path):
    torch.set_num_threads(1)
    flat = np.repeat(np.arange(0, 256, 16, dtype=np.uint8), 64 * 64 * 3).reshape(16, 64, 64, 3)
    boxes = np.full((16, 4), np.nan, np.float32)
    boxes[:8] = [16, 16, 48, 48]
    vae = autoencoder.train(autoencoder.build(), flat, boxes, Plan("vae", tmp_path, 30, 2e-3), batch=4)
    assert autoencoder.psnr(vae, flat) > 12
    assert autoencoder.latents(vae, flat).std().item() == pytest.approx(1, abs=0.1)


def test_captions_tell_the_readers_what_they_say_and_nothing_else():
    wanted = language.targets([language.said("A smiling person with the head turned left.")], language.NAMES)
    values = {name: list(lexicon.LEXICON[name])[int(i)] for name, i in wanted.items() if int(i) >= 0}
    assert values == {"expression": "smiling", "pose": "left"}
    heads = language.Heads(8, language.NAMES)
    assert torch.isfinite(heads.loss(torch.randn(1, 8), wanted))


def test_in_the_mirror_left_and_right_change_places():
    poses = list(lexicon.POSES)
    assert [poses[i] for i in mirror("pose")] == [
        {
            "left": "right",
            "right": "left",
            "up-left": "up-right",
            "up-right": "up-left",
            "tilt-left": "tilt-right",
            "tilt-right": "tilt-left",
        }.get(pose, pose)
        for pose in poses
    ]
    assert mirror("garment") == list(range(len(lexicon.GARMENTS)))


def test_a_picture_and_its_mirror_image_are_read_alike():
    torch.manual_seed(0)
    reader = Probes(ProbeNet(), {})
    pictures = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    seen, turned = reader.read(list(pictures)), reader.read(list(pictures[:, :, ::-1]))
    for name in READS:
        values = list(lexicon.LEXICON[name])
        assert [values[mirror(name)[values.index(value)]] for value in seen[name]] == turned[name]


def test_probes_see_pictures_moved_by_no_more_than_stated():
    square = torch.zeros(64, 1, 64, 64)
    square[:, :, 28:36, 28:36] = 1
    moved = probes.moved(square, np.random.default_rng(0))
    rows = (moved.sum((1, 3)) * torch.arange(64)).sum(1) / moved.sum((1, 2, 3))
    assert 0.5 < rows.std() and (rows - 31.5).abs().max() < 32 * 1.1 * probes.SHIFT + 0.5
    areas = moved.sum((1, 2, 3)) / 64
    assert areas.min() > 0.85 and areas.max() < 1.15


def test_in_the_mirror_faces_change_sides_and_so_do_the_words():
    made = toy(1, 2)
    made.attributes[0] |= {"pose": "left", "gaze": "up", "hair": "long"}
    points = np.float32([[[15, 10], [25, 11], [20, 20], [16, 30], [24, 31]], [[np.nan] * 2] * 5])
    found = renders.Faces(np.zeros(0), np.float32([[10, 5, 30, 40], [np.nan] * 4]), points, np.zeros(0))
    turned, faces = renders.mirrored(made, found)
    assert turned.attributes[0]["pose"] == "right" and turned.attributes[0]["gaze"] == "up"
    assert turned.attributes[0]["hair"] == "long" and made.attributes[0]["pose"] == "left"
    assert np.array_equal(turned.images[:, :, ::-1], made.images)
    assert faces.box[0].tolist() == [34, 5, 54, 40] and np.isnan(faces.box[1]).all() and found.box[0, 0] == 10
    assert faces.landmarks[0].tolist() == [[38, 11], [48, 10], [43, 20], [39, 31], [47, 30]], "the left eye is left"


def test_parts_are_kept_begun_from_what_ships_or_made_anew(tmp_path, monkeypatch, root):
    """Two steps of every part on six toy pictures: each lies under its own name, and what is kept is what ships."""
    torch.set_num_threads(1)
    monkeypatch.chdir(root)
    monkeypatch.setattr(recipe, "WORK", tmp_path)
    start = ("vae", "clip", "unet")
    made = recipe.Recipe(3, 2, steps=dict.fromkeys(recipe.STEPS, 2), keep=["byt5"], start=start)
    rng = np.random.default_rng(0)
    made.train = toy()
    for row in made.train.attributes:
        row |= {name: str(rng.choice(list(lexicon.LEXICON[name]))) for name in lexicon.PERSON}
    boxes = np.tile(np.float32([16, 16, 48, 48]), (6, 1))
    points = lesson(6).landmarks
    made.faces = renders.Faces(made.train.images, boxes, points, rng.normal(size=(6, 128)).astype(np.float32))
    before = made.shipped.unet.conv_in.weight.clone()
    for part in recipe.STEPS:
        getattr(made, part)
    taught = made.lesson
    assert {len(part) for part in (taught.latents, taught.twins, taught.texts, taught.others, taught.who)} == {12}
    assert taught.twins.tolist() == [2, 3, 0, 1, 4, 5, 8, 9, 6, 7, 10, 11], "mirror images have mirrored twins"
    assert made.byt5 is made.shipped.text["byt5"].encoder
    names = {f"{part}-further" if part in start else part for part in recipe.STEPS if part != "byt5"}
    assert {path.stem for path in made.work.glob("*.safetensors") if "latents-" not in path.stem} == names
    moved = (made.unet.conv_in.weight - before).abs().max()
    assert 0 < moved < 0.01, "it began with what ships, and learnt"
    assert made.latents.shape == (6, 4, 16, 16)


def test_the_pretrained_bundle_sees_with_the_foundations_eyes():
    """Its attention learnt with that tower's answers: with another's it would draw nobody."""
    ours, base = (load_file(WEIGHTS / name / "vision/model.safetensors") for name in ("pretrained", "foundation"))
    assert ours.keys() == base.keys() and all(torch.equal(ours[name], base[name]) for name in base)


def test_a_bundle_that_goes_on_keeps_its_own_eyes(root):
    base = load_base(params.load("studio").base)
    model, learnt = (Personaliser(base, params.load("studio").model) for _ in range(2))
    with torch.no_grad():
        for weight in learnt.parameters():
            weight.add_(0.5)
    before = model.vision.tower.visual_projection.weight.clone()
    unet.begin(model, learnt)
    assert torch.equal(model.vision.tower.visual_projection.weight, before)
    assert torch.equal(model.vision.whole.weight, learnt.vision.whole.weight)


def test_the_shipped_weights_fit_their_size_and_are_not_pickles():
    files = [path for path in WEIGHTS.rglob("*") if path.is_file()]
    weights = [path for path in files if path.stat().st_size > 2**18]
    assert {path.suffix for path in weights} == {".safetensors"}
    assert sum(path.stat().st_size for path in weights) <= 40e6
