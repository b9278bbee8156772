"""The recipe that makes the shipped weights, on toy data: what is trained, read back, and kept apart."""

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from iy import lexicon, params
from iy.diffusion import load_base
from iy.faces.dlibtorch import chips
from iy.model import Personaliser
from iy.studio.foundation import (
    autoencoder,
    language,
    muon,
    pairs,
    probes,
    quality,
    reader,
    recipe,
    recogniser,
    renders,
    sight,
    unet,
)
from iy.studio.foundation import lesson as lessons
from iy.studio.foundation.recipe import WORKERS
from iy.studio.foundation.train import Plan, fit
from iy.studio.probes import READS, ProbeNet, Probes, mirror

WEIGHTS = Path(__file__).parents[1] / "weights" / "studio"


def toy(people: int = 3, shots: int = 2) -> renders.Renders:
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 256, (people * shots, renders.PHOTO, renders.PHOTO, 3), np.uint8)
    rows = [{name: str(rng.choice(list(lexicon.LEXICON[name]))) for name in lexicon.SHOT} for _ in photos]
    return renders.Renders(photos, renders.reduced(photos), np.repeat(np.arange(people), shots), rows)


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


def test_the_window_that_is_read_holds_the_face():
    boxes = np.float32([[20, 15, 48, 53], [0, 0, 20, 30], [40, 40, 64, 64], [np.nan] * 4])
    starts = reader.windows(boxes)
    assert starts.tolist() == [[2, 2], [0, 0], [4, 4], [2, 2]]
    x0, y0 = starts[0] * reader.CELL + reader.CELL
    assert x0 <= 20 and y0 <= 15 and x0 + reader.FACE >= 48 and y0 + reader.FACE >= 51
    vae = autoencoder.build().eval()
    whole = torch.randn(2, 4, 16, 16, requires_grad=True)
    faces = reader.decoded(vae, whole, starts[:2])
    assert faces.shape == (2, 3, 48, 48)
    assert torch.equal(reader.middle(faces), faces[:, :, 4:44, 4:44])
    faces.sum().backward()
    assert whole.grad[0, :, 2:14, 2:14].abs().sum() > 0 == whole.grad[0, :, :2].abs().sum()


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (8, 4, 3, 3)])
def test_muon_moves_as_pytorchs_own_does(shape):
    """Theirs works in bfloat16 and on matrices."""
    torch.manual_seed(0)
    ours = torch.nn.Parameter(torch.randn(shape))
    theirs = torch.nn.Parameter(ours.detach().flatten(1).clone())
    known = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.01, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    mine = muon.Muon([ours], lr=0.02, momentum=0.95, weight_decay=0.01)
    before = theirs.detach().clone()
    for _ in range(3):
        gradient = torch.randn(shape)
        ours.grad, theirs.grad = gradient, gradient.flatten(1)
        mine.step(), known.step()
    moved, right = ours.detach().flatten(1) - before, theirs.detach() - before
    assert (moved - right).norm() < 0.03 * right.norm()


def test_matrices_made_orthogonal_together_are_those_made_apart():
    many = torch.randn(3, 5, 9, generator=torch.Generator().manual_seed(2))
    together = muon.orthogonal(many)
    for one, same in zip(many, together, strict=True):
        torch.testing.assert_close(muon.orthogonal(one[None])[0], same, atol=1e-5, rtol=0)


def test_the_orthogonal_matrix_keeps_directions_and_levels_sizes():
    torch.manual_seed(1)
    u, _, v = torch.linalg.svd(torch.randn(12, 30), full_matrices=False)
    levelled = muon.orthogonal((u @ torch.diag(torch.linspace(1, 5, 12)) @ v)[None])[0]
    sizes = torch.linalg.svdvals(levelled)
    assert 0.6 < sizes.min() and sizes.max() < 1.3
    torch.testing.assert_close(u.T @ levelled @ v.T, torch.diag((u.T @ levelled @ v.T).diag()), atol=1e-4, rtol=0)


def lesson(count: int = 8) -> lessons.Lesson:
    texts = [["silent", "A smiling man.", "A sad man."] for _ in range(count)]
    others = [np.array([1, 2])] * (count - 1) + [np.array([], int)]
    rows = [{"gender": "man", "expression": "smiling"} for _ in range(count)]
    boxes = np.tile(np.float32([16, 16, 48, 48]), (count, 1))
    points = np.tile(np.float32([[26, 28], [38, 28], [32, 35], [27, 42], [37, 42]]), (count, 1, 1))
    latents, who = torch.zeros(count, 4, 16, 16), np.arange(count)
    images = torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return lessons.Lesson(latents, images, who[::-1], boxes, points, texts, rows, who, others, (None, None))


def test_the_pictures_error_is_that_of_v_but_for_those_who_were_swapped():
    from diffusers import DDPMScheduler

    torch.manual_seed(0)
    schedule, t = DDPMScheduler(**unet.SCHEDULE), torch.tensor([30, 300, 600])
    x, noise, v = (torch.randn(3, 4, 16, 16) for _ in range(3))
    predicted = unet.clean(schedule, schedule.add_noise(x, noise, t), v, t)
    error = lessons.picture_error(predicted, x, schedule.alphas_cumprod[t], torch.tensor([False, False, True]))
    right = (v - schedule.get_velocity(x, noise, t)).square()
    torch.testing.assert_close(error[:2], right[:2], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(error[2], (predicted - x)[2].square())


def test_captions_leave_to_the_reference_who_it_is():
    rng = np.random.default_rng(0)
    known, words, references = lessons.choose(lesson(), np.zeros(4000, int), rng)
    assert set(references) == {1, 2} and known.mean() == pytest.approx(lessons.REFERENCE, abs=0.03)
    words = np.array(words)
    assert (words == "").mean() == pytest.approx(lessons.EMPTY, abs=0.02)
    assert (words[known] == "silent").mean() > 0.7 and (words[~known] == "silent").mean() < 0.4
    assert not lessons.choose(lesson(), np.full(50, 7), rng)[0].any(), "nobody else's photo stands in for a missing one"


def test_the_face_is_asked_for_what_is_known_of_it():
    torch.manual_seed(0)
    net, data, clear = reader.FaceReader(), lesson(), torch.ones(1)
    features = torch.randn(1, reader.FEATURES)

    def wrong(known: bool, text: str) -> torch.Tensor:
        return unet.said_loss(net, features, data, np.array([0]), np.array([known]), [text], clear)

    assert wrong(False, "") == 0, "nothing said, nothing shown"
    smiling, sad = (wrong(False, text) for text in ("A smiling person.", "A sad person."))
    assert smiling != sad and smiling > 0
    assert wrong(True, "A smiling person.") > smiling, "the reference shows a man"
    with torch.no_grad():
        net.heads.heads["expression"].bias[list(lexicon.LEXICON["expression"]).index("smiling")] += 10
    assert wrong(False, "A smiling person.") < smiling


def test_a_face_seen_in_a_mirror_keeps_its_landmarks():
    data, rng = lesson(), np.random.default_rng(0)
    landmarks, pictures = data.landmarks - 8.0, torch.zeros(8, 3, 48, 48)
    for i, points in enumerate(landmarks.astype(int)):
        pictures[i, :, points[:, 1], points[:, 0]] = torch.arange(1.0, 6)  # each landmark has a colour of its own
    seen, moved = unet.from_elsewhere(pictures, landmarks, rng)
    turned = ~(seen == pictures).flatten(1).all(1)
    assert 0 < turned.sum() < 8, "some are turned, some are not"
    for picture, points, mirrored in zip(seen, moved.round().astype(int), turned, strict=True):
        colours = [2, 1, 3, 5, 4] if mirrored else [1, 2, 3, 4, 5]
        assert [round(float(picture[0, y - 1 : y + 2, x - 1 : x + 2].max())) for x, y in points] == colours
    assert 0.1 < np.abs(moved - landmarks)[~turned.numpy()].max() <= unet.OFF


def test_a_face_is_told_from_everybody_elses(monkeypatch):
    """Cross-entropy of sharpened cosines over all people, written out; a face nowhere found is nobody's."""
    torch.manual_seed(0)
    means, data, pick = np.random.default_rng(0).normal(size=(8, 128)), lesson(), np.array([4, 0, 2])
    knows, faces = recogniser.Recogniser(means), torch.rand(3, 3, 48, 48, requires_grad=True)
    starts = reader.windows(data.boxes)
    seen = knows.net(chips(faces, data.landmarks[pick] - 8)).detach().numpy() - means.mean(0)
    away = means - means.mean(0)
    cosines = (seen @ away.T) / np.linalg.norm(seen, axis=1)[:, None] / np.linalg.norm(away, axis=1)
    odds = np.exp(recogniser.SHARPNESS * cosines)
    right = -np.log(odds[range(3), pick] / odds.sum(1))
    asked = np.array([True, True, False])
    monkeypatch.setattr(unet, "worn", lambda pictures, *_: pictures)
    rng = SimpleNamespace(random=np.ones, uniform=lambda low, high, shape: np.zeros(shape))  # from where it is, unturned
    who, unlike = unet.who_loss(knows, faces, data, pick, asked, starts, rng)
    assert who.item() == pytest.approx(right[:2].mean(), rel=1e-4) and 0.01 < unlike.item() < 2
    who.backward()
    assert faces.grad[:2].abs().amax((1, 2, 3)).min() > 0 == faces.grad[2].abs().max()
    data.boxes[:] = np.nan
    assert unet.who_loss(knows, faces, data, pick, asked, starts, rng) == (0, 0)


def test_the_true_picture_is_the_one_most_like_itself():
    data, pick, rng = lesson(), np.array([0, 3, 5]), np.random.default_rng(0)
    knows, starts = recogniser.Recogniser(np.random.default_rng(0).normal(size=(8, 128))), reader.windows(data.boxes)
    true = reader.cut_out(data.images[pick], 4 * starts[pick], 48) / 127.5 - 1
    share = torch.tensor([0.0, 0.5, 1.0])
    other = torch.rand(true.shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    asked = np.ones(3, bool)
    far = [unet.who_loss(knows, torch.lerp(true, other, s), data, pick, asked, starts, rng)[1].item() for s in share]
    assert far[0] < 0.5 * far[1] < 0.5 * far[2], "noise that each of the two is seen through is all that is left"
    maps = knows.maps(true, data.landmarks[pick] - 8)
    assert knows.unlike(maps, maps).abs().max() < 1e-6
    opposite = [-part for part in maps]
    assert knows.unlike(maps, opposite) == pytest.approx(2, abs=1e-5)


def test_a_square_is_cut_from_where_it_is_said():
    pictures = torch.arange(2 * 3 * 8 * 10.0).reshape(2, 3, 8, 10)
    cut = reader.cut_out(pictures, np.array([[6, 4], [1, 0]]), 4)
    assert torch.equal(cut[0], pictures[0, :, 4:8, 6:10]) and torch.equal(cut[1], pictures[1, :, 0:4, 1:5])


def test_latent_cells_of_the_face_count_more():
    data = lesson()
    data.boxes[1] = np.nan
    weights = data.weights()
    assert weights.shape == (8, 1, 16, 16) and weights.mean((1, 2, 3)) == pytest.approx(1)
    assert weights[0, 0, 4:12, 4:12].min() == pytest.approx(lessons.FACE * float(weights[0, 0, 0, 0]))
    assert (weights[1] == 1).all()


def test_two_people_are_drawn_side_by_side_each_from_their_own_reference(monkeypatch):
    from diffusers import DDPMScheduler

    # Of black pictures the true v is known. A U-Net that gives it makes no error, and is told whose half is whose.
    schedule, rng, source = DDPMScheduler(**unet.SCHEDULE), np.random.default_rng(0), torch.Generator().manual_seed(0)
    data, told, sources = lesson(), {}, (source, source)
    data = data._replace(seen=(torch.arange(3.0)[:, None], torch.arange(3.0)[:, None, None].expand(3, 4, 1)))

    def context(text, vision):
        told.update(vision=vision, text=text)

    def perfect(noisy, t, _):
        assert noisy.shape == (400, 4, 16, 32)
        share = schedule.alphas_cumprod[t][:, None, None, None]
        return noisy * (share / (1 - share)).sqrt()

    def project(whole, patches):
        return torch.cat([whole[:, None], patches], 1)

    model = SimpleNamespace(
        own="clip",
        context=context,
        denoise=perfect,
        device=torch.device("cpu"),
        vision=SimpleNamespace(project=project),
    )
    monkeypatch.setattr(pairs, "mixed", lambda device: contextlib.nullcontext())
    assert pairs.loss(model, data, data.weights(), schedule, lambda words: words, rng, sources, 400) < 1e-6
    vision = told["vision"]
    left, right = vision.regions[0]
    assert left[:, :16].all() and not left[:, 16:].any() and torch.equal(right, ~left)
    assert vision.tokens.shape == (400, 10, 1) and set(told["text"]["clip"]) == {"silent", ""}
    both = vision.mask.unflatten(1, (2, 5)).all(2)
    assert both.all(1).float().mean() == pytest.approx(0.75 * lessons.REFERENCE, abs=0.06), (
        "two of eight lack one photo"
    )
    model.denoise = lambda noisy, t, _: torch.zeros_like(noisy)
    assert pairs.loss(model, data, data.weights(), schedule, lambda words: words, rng, sources, 400) > 0.1


def test_the_unet_is_the_personal_one_without_references(root, monkeypatch):
    from iy import params
    from iy.diffusion import load_base
    from iy.model import Personaliser
    from iy.model.conditioning import Vision

    monkeypatch.chdir(root)
    settings = params.load("studio")
    base = load_base(settings.base)
    learnt = unet.personal(base, settings.model).eval()
    for layer in learnt.cross_attentions():
        torch.nn.init.normal_(layer.processor.out["vision"], std=0.1)
    x, t, text, mask = (
        torch.randn(2, 4, 16, 16),
        torch.tensor([5, 500]),
        torch.randn(2, 7, 192),
        torch.ones(2, 7).bool(),
    )
    crops = torch.rand(2, 1, 3, 64, 64)
    with torch.no_grad():
        alone = learnt.denoise(x, t, learnt.context({"clip": (text, mask)}))
        stock = unet.plain(learnt)(x, t, text, encoder_attention_mask=mask).sample
        torch.testing.assert_close(alone, stock, atol=1e-5, rtol=0)
        model = Personaliser(base, settings.model).eval()
        unet.begin(model, learnt)
        seen = [
            one.denoise(x, t, one.context({"clip": (text, mask)}, Vision(*one.vision(crops, torch.ones(2, 1)))))
            for one in (learnt, model)
        ]
        torch.testing.assert_close(seen[0], seen[1], atol=1e-5, rtol=0)
        assert (seen[0] - alone).abs().max() > 1e-3


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
