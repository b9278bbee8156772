"""What the foundation's U-Net and decoder learn from: windows, mirrors, persons, pairs; and how its optimiser moves."""

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from foundation import autoencoder, likeness, muon, pairs, reader, recogniser, renders, sharpen, unet
from foundation import lesson as lessons
from foundation.train import Plan
from iy import lexicon
from iy.faces.dlibtorch import chips
from tests.depth import THOROUGH
from tests.toys import lesson


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
    seen, moved = recogniser.from_elsewhere(pictures, landmarks, rng)
    turned = ~(seen == pictures).flatten(1).all(1)
    assert 0 < turned.sum() < 8, "some are turned, some are not"
    for picture, points, mirrored in zip(seen, moved.round().astype(int), turned, strict=True):
        colours = [2, 1, 3, 5, 4] if mirrored else [1, 2, 3, 4, 5]
        assert [round(float(picture[0, y - 1 : y + 2, x - 1 : x + 2].max())) for x, y in points] == colours
    assert 0.1 < np.abs(moved - landmarks)[~turned.numpy()].max() <= recogniser.OFF


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
    rng = SimpleNamespace(
        random=np.ones, uniform=lambda low, high, shape: np.zeros(shape)
    )  # from where it is, unturned
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


@pytest.mark.skipif(not THOROUGH, reason="a recipe that ran: IY_THOROUGH=1")
def test_the_decoder_learns_what_a_recogniser_sees_and_the_encoder_stays(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    flat = np.full((4, 64, 64, 3), 200, np.uint8)
    flat[:, 24:40, 24:40] = np.array([20, 60, 100, 140])[:, None, None, None]
    data, vae, knows = lesson(4), autoencoder.build().eval(), recogniser.Recogniser(np.eye(2, 128))
    faces = renders.Faces(flat, data.boxes, data.landmarks, np.zeros((4, 128), np.float32))
    latents = autoencoder.latents(vae, flat)
    before = {name: value.clone() for name, value in vae.state_dict().items()}

    def learnt(like: float):
        monkeypatch.setattr(sharpen, "LIKE", like)
        plan = Plan(f"decoder{like}", tmp_path, 20, 2e-3)
        return sharpen.train(vae, latents, flat, faces, knows, plan, batch=4)

    def unlike(one) -> float:
        seen = autoencoder.reconstructions(one, latents)
        maps = [knows.maps(autoencoder.pixels(part), data.landmarks) for part in (seen, flat)]
        return knows.unlike(*maps).mean().item()

    without, with_it = learnt(0.0), learnt(30.0)
    assert unlike(with_it) < unlike(without) and autoencoder.psnr(without, flat) > 1 + autoencoder.psnr(vae, flat)
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items()), "it is another one"
    moved = {name.split(".")[0] for name, value in with_it.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"decoder", "post_quant_conv"}


def test_pictures_equally_many_of_each_person_are_looked_up_among_their_gallery(monkeypatch):
    monkeypatch.setattr(likeness, "GALLERY", 2)
    templates = list(np.eye(4, 8))
    seen = [templates[0], templates[1], templates[1], None, templates[2], templates[0], templates[3], templates[2]]
    assert likeness.recognised(seen, templates) == [True, False, True, False, True, True, True, False]
