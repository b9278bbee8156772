"""The recipe that makes the shipped weights, on toy data: what it learns from, and what it is never shown."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from foundation import autoencoder, captions, identity, language, perceptual, probes, quality, renders, unet
from foundation.recipe import GROUPS
from foundation.train import Plan, fit
from iy.evaluate.probes import ANSWERS, ProbeNet, Probes
from tests.toys import toy

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[1]
TEXT_TO_IMAGE = ("renders", "captions", "language", "unet", "train", "muon")


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("part", TEXT_TO_IMAGE)
def test_the_text_to_image_model_never_meets_a_person(part):
    """Neither a recogniser nor the attention to references is in reach of its training code. `renders` finds faces, for
    the autoencoder's weights and for what comes after the foundation; it hands embeddings to nobody here."""
    names = imported(ROOT / "foundation" / f"{part}.py")
    assert not any(
        name.startswith(("iy.model", "iy.finetune", "foundation.perceptual", "foundation.identity")) for name in names
    )
    if part != "renders":
        assert not any(name.startswith("iy.faces") for name in names)
        assert "embedding" not in (ROOT / "foundation" / f"{part}.py").read_text()


def test_the_foundations_people_are_never_the_photo_sources():
    assert all(group.first + group.people <= renders.FIRST_RESERVED for group in GROUPS.values())
    ranges = sorted((group.first, group.first + group.people) for group in GROUPS.values())
    assert all(end <= start for (_, end), (start, _) in zip(ranges, ranges[1:], strict=False))


def test_a_part_that_is_done_is_read_back_and_an_unfinished_one_goes_on(tmp_path):
    def part(steps):
        torch.manual_seed(0)
        plan = Plan("line", tmp_path, steps, 0.1, 4, CPU)
        seen = []

        def draw(step):
            seen.append(step)
            return {"x": torch.ones(4, 1)}

        module = torch.nn.Linear(1, 1)
        fit(plan, module, draw, lambda batch: (module(batch["x"]) - 3).square().mean())
        return module, seen

    first, seen = part(30)
    assert seen == list(range(30)) and not list(tmp_path.glob("*.part.*"))
    again, seen = part(30)
    assert seen == [] and torch.equal(first.weight, again.weight)


def test_a_part_ends_when_its_time_is_over(tmp_path):
    plan = Plan("line", tmp_path, 10**9, 0.1, 4, CPU, seconds=0.3)
    module = torch.nn.Linear(1, 1)
    fit(plan, module, lambda step: {"x": torch.ones(4, 1)}, lambda batch: module(batch["x"]).square().mean())
    assert (tmp_path / "line.safetensors").exists()


def test_tensors_that_are_one_and_the_same_are_stored_once_and_stay_tied(tmp_path):
    encoder = language.t5_encoder(50, 0)
    plan = Plan("t5", tmp_path, 2, 1e-3, 2, CPU)
    ids = {"ids": torch.ones(2, 3, dtype=torch.long)}
    fit(
        plan, encoder, lambda step: ids, lambda batch: encoder(input_ids=batch["ids"]).last_hidden_state.square().mean()
    )
    assert (
        len([name for name in load_file(tmp_path / "t5.safetensors") if "embed_tokens" in name or "shared" in name])
        == 1
    )
    other = fit(plan, language.t5_encoder(50, 1), lambda step: ids, lambda batch: batch["ids"].sum())
    assert torch.equal(other.shared.weight, encoder.shared.weight)
    assert other.encoder.embed_tokens.weight.data_ptr() == other.shared.weight.data_ptr()


def test_the_autoencoder_is_an_eighth_of_the_side_and_its_latents_have_unit_variance(tmp_path):
    made = toy()
    net = perceptual.DlibNet.__new__(perceptual.DlibNet)
    torch.nn.Module.__init__(net)
    net.maps = lambda x: [x] * 14  # the maps of a network that sees pixels
    vae = autoencoder.train(autoencoder.build(), made, net, Plan("vae", tmp_path, 3, 1e-3, 4, CPU))
    codes = autoencoder.latents(vae, autoencoder.tensor(made.images))
    assert codes.shape == (6, autoencoder.CHANNELS, 16, 16) and 0.9 < codes.std() < 1.1
    assert autoencoder.reconstructions(vae, codes).shape == made.images.shape


def test_the_true_picture_is_the_one_most_like_itself_and_a_mirrored_chip_is_its_mirror():
    class Pixels:
        def maps(self, x):
            return [x] * 14

    torch.manual_seed(0)
    picture = torch.rand(2, 3, 128, 128) * 2 - 1
    ways = perceptual.ways(toy().landmarks[:2], np.random.default_rng(0))
    assert perceptual.unlike(Pixels(), picture, picture, ways) < 1e-5
    assert perceptual.unlike(Pixels(), picture, torch.rand_like(picture) * 2 - 1, ways) > 0.1
    plain, turned = torch.eye(2, 3)[None], torch.tensor([[[-1.0, 0, perceptual.CHIP - 1], [0, 1, 0]]])
    one, other = (
        perceptual.chips(torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(1)), w)
        for w in (plain, turned)
    )
    torch.testing.assert_close(one, other.flip(3), atol=1e-4, rtol=0)


def test_in_the_mirror_left_and_right_change_places_and_letters_are_not_turned():
    row = {"pose": "up-left", "gaze": "right", "light": "left", "expression": "smiling", "hair": "bob"}
    assert renders.mirrored(row) == {
        "pose": "up-right",
        "gaze": "left",
        "light": "right",
        "expression": "smiling",
        "hair": "bob",
    }
    made = toy()
    assert made.turns.tolist() == [True] + [False] * 5
    assert made.turned[1:] == made.attributes[1:]


def test_the_foundations_captions_never_spell_the_word_and_its_text_encoders_do():
    made = toy()
    assert not any('"' in one.text for several in captions.captions(made) for one in several)
    assert all('"' in one.text for one in captions.read(made) if "garment" in one.said)
    assert any('"SUN"' in text for text in captions.of_photos(made, np.arange(6), False))


def test_letters_are_told_by_place():
    assert language.spelt('a badge saying "SUN"') == [19, 21, 14, 0, 0, 0]
    assert language.spelt("no word") == [-1] * language.PLACES


def test_unknown_answers_cost_nothing():
    logits, right = torch.randn(3, 4), torch.tensor([1, -1, -1])
    alone = torch.nn.functional.cross_entropy(logits[:1], right[:1])
    torch.testing.assert_close(language.among_known(logits, right), alone)
    assert language.among_known(logits, torch.full((3,), -1)) == 0


def test_views_begin_with_the_render_and_turn_only_what_may_be_turned():
    made, vae = toy(), autoencoder.build().eval()
    seen = unet.views(vae, made.images, 2, made.turns)
    plain = autoencoder.latents(vae, autoencoder.tensor(made.images)).bfloat16()
    mirror = autoencoder.latents(vae, autoencoder.tensor(np.ascontiguousarray(made.images[:1, :, ::-1]))).bfloat16()
    assert len(seen) == 4 * 6
    torch.testing.assert_close(seen[:6], plain)
    torch.testing.assert_close(seen[12:13], mirror)
    torch.testing.assert_close(seen[13:18], plain[1:])


def test_a_person_points_away_from_the_mean_of_all_and_unseen_faces_do_not_count():
    made = toy()
    made.box[1] = np.nan
    where = identity.directions(made, made.person)
    own = np.stack([made.embedding[0], made.embedding[2:4].mean(0), made.embedding[4:].mean(0)])
    own -= own.mean(0)
    assert (where @ (own / np.linalg.norm(own, axis=1, keepdims=True)).T).diagonal().min() > 0.999


@pytest.mark.parametrize("side", [64, 128])
def test_probes_read_pictures_of_any_size_and_no_word_in_the_mirror(side):
    torch.manual_seed(0)
    images = list(toy().images[:2])
    seen = Probes(ProbeNet(side), {}).read(images)
    assert set(seen) == set(ANSWERS) and all(len(values) == 2 for values in seen.values())
    assert probes.answers(toy())["word"].tolist() == [0] + [ANSWERS["word"].index("SUN")] * 5


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
    assert asked == quality.combinations(known) and not any(row in known for row in asked)


def test_the_shipped_weights_fit_their_size_and_are_not_pickles():
    files = [path for path in (ROOT / "weights").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 80 << 20
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".pth", ".pkl", ".ckpt")]
