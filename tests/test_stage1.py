"""The long stage 1 on a machine that is had by the minute: what it learns from, when it ends, what comes back."""

import io
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from foundation import album, grid, lesson, likeness, longrun, pack, perceptual, renders, settings, stage1
from foundation.arms import Pixels
from foundation.train import falling
from iy.diffusion import load_base
from iy.diffusion.encode import tokenized
from iy.errors import UserError
from iy.finetune import identity
from iy.model import Personaliser
from tests.tiny import tiny_base, tiny_params
from tests.toys import toy

ROOT = Path(__file__).parents[1]
LESSON = ("album", "arms", "lesson", "longrun", "stage1", "settings", "perceptual", "identity")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tiny_base(tmp_path_factory.mktemp("base"))
    chosen = settings.long_stage1(tiny_params(folder), rate=1e-3, batch=3, steps=4, precision="no", identity_weight=0.0)
    return chosen, load_base(chosen.base)


def toy_album(people: int = 3) -> album.Album:
    made = toy(people, 1)
    words = [[f"person {i} says {k}" for k in range(2)] for i in range(people)]
    turned = [[f"turned {text}" for text in some] for some in words]
    return album.Album(made, words, turned, ["woman young african"] * people)


def chunk_on_disk(folder: Path, group: renders.Group) -> Path:
    """A chunk as rendering leaves it, of pictures that are one colour each."""
    made, rng = [], np.random.default_rng(group.first)
    for number in range(group.people * group.shots):
        buffer = io.BytesIO()
        Image.new("RGB", (renders.SIDE, renders.SIDE), (number, 100, 100)).save(buffer, "WEBP", lossless=True)
        made.append((buffer.getvalue(), np.full(4, number, np.float32), np.zeros((5, 2)), rng.normal(size=128)))
    renders.store(folder / f"{group.first}.npz", made)
    return folder / f"{group.first}.npz"


def test_time_or_steps_end_a_run_whichever_are_over_first(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(longrun.time, "monotonic", lambda: now[0])
    clock = longrun.Clock(steps=1000, seconds=60, later=20)
    clock.start(before=20)
    now[0] += 30
    assert clock.gone(10) == pytest.approx(0.5) and not clock.over(10)  # 20 and 30 of 100 seconds
    assert clock.gone(900) == pytest.approx(0.9) and clock.over(1000)
    now[0] += 30
    assert clock.over(10) and clock.gone(10) == pytest.approx(0.8)  # the rest is for the runs to come


def test_the_rate_rises_falls_and_ends_at_a_fiftieth():
    shares = [falling(gone) for gone in (0, 0.25, 0.5, 1, 2)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == pytest.approx(1) and shares[-1] == shares[-2] == pytest.approx(0.02)


def trainer(tiny, work: Path | None, clock: longrun.Clock, keep=None) -> longrun.LongTrainer:
    chosen, base = tiny
    model = Personaliser(base, chosen.model)
    several = [lesson.build(toy_album(), base, chosen, 32, mirror) for mirror in (True, False)]
    return longrun.LongTrainer(model, base.scheduler, *several, chosen, clock, None, resume=work, keep=keep)


class Interrupted(longrun.Clock):
    def over(self, step: int) -> bool:
        return step >= 2


def test_a_run_that_ended_early_goes_on_to_the_same_weights(tiny, tmp_path):
    whole = trainer(tiny, None, longrun.Clock(4))
    whole.train()
    trainer(tiny, tmp_path, Interrupted(4)).train()
    second = trainer(tiny, tmp_path, longrun.Clock(4))
    second.train()
    assert [step for step, _ in second.curves["seconds"]] == [2, 4]
    fresh = Personaliser(tiny[1], tiny[0].model).state_dict()
    for name, weight in whole.weights.items():
        assert torch.equal(weight, second.weights[name]), name
    assert any(not torch.equal(weight, fresh[name]) for name, weight in whole.weights.items())


def test_what_comes_back_is_a_bundle_a_card_and_the_checkpoint_in_small_pieces(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(stage1, "PIECE", 100_000)
    work, out = tmp_path / "work", tmp_path / "out"
    said = {"arm": "plain", "steps": 2, "pictures": 5, "batch": 3}
    made = trainer(tiny, work, Interrupted(4), lambda step: stage1.deliver(made.model, work, out, said))
    made.train()
    pieces = sorted(out.glob("state.tar.*"), key=lambda path: int(path.suffix[1:]))
    assert len(pieces) > 1 and max(path.stat().st_size for path in pieces) <= 100_000
    (tmp_path / "joined.tar").write_bytes(b"".join(path.read_bytes() for path in pieces))
    with tarfile.open(tmp_path / "joined.tar") as tar:
        tar.extractall(tmp_path / "elsewhere", filter="data")
    assert trainer(tiny, tmp_path / "elsewhere", longrun.Clock(4)).restore() == 2
    with tarfile.open(out / "bundle.tar") as tar:
        assert {"pretrained/config.json", "pretrained/adapter.safetensors"} <= set(tar.getnames())


def test_every_step_has_the_same_shapes_and_follows_from_its_number(tiny):
    chosen, base = tiny
    made = lesson.build(toy_album(), base, chosen, 32, mirror=False)
    first, again, next_one = (made.draws(0, step, chosen.finetune.training, 1000, 2) for step in (5, 5, 6))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["t"], next_one["t"]) and first["seed"] != next_one["seed"]
    one, other = (made.batch({k: v for k, v in draws.items()}) for draws in (first, next_one))
    assert one.latents.shape == other.latents.shape and one.pictures.shape == (2, 3, 128, 128)
    for name, (hidden, mask) in one.text.items():
        assert hidden.shape == other.text[name][0].shape and not hidden[~mask].any()
    assert torch.equal(one.latents, made.latents[first["pick"]])
    assert torch.equal(first["pick"], first["caption"] // made.captions)  # a picture with one of its own captions


def test_the_reference_is_the_crop_of_the_very_picture_also_in_the_mirror(tiny):
    chosen, base = tiny
    shown = toy_album()  # the first of its pictures shows no letters
    made = lesson.build(shown, base, chosen, 32, mirror=True)
    assert len(made.latents) == 4 and len(made) == 8
    assert torch.equal(made.images[3], made.images[0].flip(2)) and torch.equal(made.crops[3], made.crops[0].flip(2))
    left, right = made.landmarks[3][:2, 0]
    assert left < right and made.landmarks[3][0, 0] == 127 - made.landmarks[0][1, 0]
    batch = made.batch({"pick": torch.tensor([3]), "caption": torch.tensor([6]), "ways": torch.zeros(0, 2, 3)})
    assert torch.equal(batch.references[0, 0], made.crops[3].float() / 127.5 - 1)


def test_captions_become_the_tokens_that_every_stage_makes_of_them(tiny):
    texts = ["a woman, smiling", "", "café " * 100]
    for name, branch in tiny[1].text.items():
        ids, mask = lesson.tokenized(branch, texts)
        tokens = tokenized(name, branch, texts, fixed_length=False, device=None)
        assert torch.equal(ids, tokens["input_ids"]) and torch.equal(mask, tokens["attention_mask"]), name


class SeesPixels(torch.nn.Module):
    """A recogniser whose maps are the chip itself, at a tenth of its size."""

    def maps(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [torch.nn.functional.avg_pool2d(x, 10)] * 14

    def vector(self, last: torch.Tensor) -> torch.Tensor:
        return last.flatten(1)


def test_the_loss_on_pixels_is_least_for_the_very_picture_and_gradients_reach_the_prediction_alone():
    torch.manual_seed(0)
    pictures = torch.randint(0, 256, (4, 3, 128, 128), dtype=torch.uint8)
    weight = torch.nn.Parameter(torch.ones(()), requires_grad=False)
    vae = SimpleNamespace(config={"scaling_factor": 2.0}, decode=lambda z: SimpleNamespace(sample=z * weight))
    shown = SimpleNamespace(images=pictures, latents=pictures, landmarks=toy(4, 1).landmarks)
    arm = Pixels(vae, SeesPixels(), shown)
    ways = perceptual.ways(shown.landmarks[:2], np.random.default_rng(0))
    batch = SimpleNamespace(pictures=pictures[:2], ways=ways)
    right = 2 * (pictures.float() / 127.5 - 1)
    wrong = right.roll(1, 0).requires_grad_(True)
    clear = torch.tensor([1.0, 0.0, 1.0, 1.0])
    assert arm.unlike(right, batch, clear) < 1e-2 < arm.unlike(wrong, batch, clear)
    arm.unlike(wrong, batch, clear).backward()
    moved = wrong.grad.abs().flatten(1).amax(1)
    assert moved[0] > 0 and not moved[1:].any()  # neither rows without weight nor rows that are not looked at
    assert weight.grad is None


def test_dlibs_network_packed_answers_as_it_is_shipped(tmp_path):
    perceptual.pack(tmp_path / "dlib.safetensors")
    assert (tmp_path / "dlib.safetensors").stat().st_size < 12e6
    chips = torch.rand(2, 3, 150, 150, generator=torch.Generator().manual_seed(0)) * 2 - 1
    both = [net(chips) for net in (perceptual.packed(tmp_path / "dlib.safetensors"), perceptual.shipped())]
    torch.testing.assert_close(*both, atol=2e-3, rtol=0)


def test_an_album_is_read_as_it_was_written_and_is_cut_by_people(tmp_path):
    for group in (renders.Group(10, 2, 2), renders.Group(12, 2, 2)):
        album.write(tmp_path / "album", group, chunk_on_disk(tmp_path, group))
    whole, some = album.read(tmp_path / "album"), album.read(tmp_path / "album", 3)
    assert whole.renders.person.tolist() == [10, 10, 11, 11, 12, 12, 13, 13]
    assert whole.renders.images[:4, 0, 0, 0].tolist() == [0, 1, 2, 3] and len(whole.captions[0]) == 4
    assert some.renders.person.tolist() == [10, 10, 11, 11, 12, 12] and some.captions == whole.captions[:6]
    with pytest.raises(UserError, match="holds no photos"):
        album.read(tmp_path)


def test_a_tar_takes_as_many_people_as_fit_and_leaves_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(pack.renders, "chunk_path", lambda folder, chunk: chunk_on_disk(tmp_path / "made", chunk))
    chunks = list(renders.Group(0, 300, 1).chunks())
    small = tmp_path / "code.py"
    small.write_text("pass")
    first = sum(pack.padded(path) for path, _ in pack.photos(chunks[0], "people", tmp_path / "measured"))
    rest = pack.fill(tmp_path / "a.tar.gz", [(small, "code.py")], chunks, int(2.5 * first), tmp_path / "place")
    assert rest == chunks[2:]
    with tarfile.open(tmp_path / "a.tar.gz") as tar:
        names = tar.getnames()
        tar.extractall(tmp_path / "there", filter="data")
    assert names[0] == "code.py" and len(names) == 5
    assert len(album.read(tmp_path / "there" / "photos" / "people").captions) == 200
    with pytest.raises(UserError, match="raise --limit"):
        pack.fill(tmp_path / "b.tar.gz", [(small, "code.py")], chunks, 10, tmp_path / "place")


def sitters() -> list[grid.Sitter]:
    return [grid.Sitter(i, "woman old asian" if i < 3 else f"man {i}", 2 * i, [2 * i + 1]) for i in range(20)]


def test_candidates_are_the_sitter_and_people_of_one_stratum_the_same_every_time():
    everybody = sitters()
    few = likeness.candidates(everybody[1], everybody, 3, alike=True)
    assert few[0] == "1" and set(few) == {"0", "1", "2"}
    many = likeness.candidates(everybody[1], everybody, 12)
    assert many == likeness.candidates(everybody[1], everybody, 12) and len(set(many)) == 12 and many[0] == "1"
    assert [one.person for one in grid.sitters(everybody, 10)] == [0, 1, 2]


def test_a_perfect_likeness_is_named_and_a_missing_face_is_a_failure_never_skipped():
    everybody, rng = sitters(), np.random.default_rng(0)
    people = np.repeat(rng.normal(size=(20, 16)), 2, 0)
    photos = list(people + 0.05 * rng.normal(size=people.shape))
    names = {str(one.person): photos[one.others[0]] / np.linalg.norm(photos[one.others[0]]) for one in everybody}
    found = SimpleNamespace(sitters=everybody[:2])
    seen = [photos[1], None, photos[3], photos[5]]  # of the sitters 0, 0, 1 and 1: right, none, right, another's
    values = likeness.cell_values(seen, found, everybody, names, photos)
    assert values["top1 of its stratum"].tolist() == [1, 0, 1, 0] and values["face found"].tolist() == [1, 0, 1, 1]
    assert values["copy-paste"][1] == 1 and values["cosine"][1] == likeness.impostors(names)


def test_a_grid_is_read_as_it_was_written(tmp_path):
    shown = toy_album()
    everybody = grid.people(album.Album(toy(3, 2), *[[["a"]] * 6] * 2, ["x"] * 6))
    assert [(one.reference, one.others) for one in everybody] == [(0, [1]), (2, [3]), (4, [5])]
    asked = [SimpleNamespace(attributes={"pose": "left"}, text="to the left")]
    pictures = {name: [np.full((128, 128, 3), 60 * k, np.uint8)] for k, name in enumerate(grid.VARIANTS)}
    one = [grid.Sitter(0, "x", 0, [1])]
    grid.write(tmp_path / "grid.npz", one, one, asked, pictures, shown, [0, 1])
    found, known = grid.read(tmp_path / "grid.npz")
    assert known == one and found.asked == [{"pose": "left"}] and found.photos.shape == (2, 128, 128, 3)
    means = [float(found.pictures[name].mean()) for name in grid.VARIANTS]
    assert means == pytest.approx([0, 60, 120, 180], abs=2)


@pytest.mark.parametrize("part", LESSON)
def test_the_judge_is_never_asked_in_training(part):
    assert "fr_feature" not in (ROOT / "foundation" / f"{part}.py").read_text()


def test_the_latents_arm_is_the_trainers_own_identity_loss(tiny):
    chosen, base = tiny
    several = [lesson.build(toy_album(), base, chosen, 32, False)] * 2
    net = identity.IdentityNet(4, 32)
    training = chosen.finetune.training.model_copy(update={"identity_weight": 0.5})
    weighted = chosen.model_copy(update={"finetune": chosen.finetune.model_copy(update={"training": training})})
    made = longrun.LongTrainer(
        Personaliser(base, chosen.model), base.scheduler, *several, weighted, longrun.Clock(1), net, resume=None
    )
    drawn, batch = torch.randn(3, 4, 32, 32), SimpleNamespace(latents=torch.randn(3, 4, 32, 32))
    value = made.unlike(drawn, batch, torch.ones(3))
    assert value == identity.loss(net, drawn, batch.latents, torch.ones(3)) and made.apart == 0.5 * value
