"""Examples are encoded once, kept under .iy/encoded, and read by row: the values and the bytes are always the same."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from iy import records, storage
from iy.diffusion import encode_images, encode_text, load_base, to_pixels
from iy.errors import UserError
from iy.faces.crop import reference_crop
from iy.finetune import data, encode, store
from iy.finetune.buckets import cut
from iy.finetune.examples import Shapes, rows_at
from iy.finetune.loader import Loader
from iy.finetune.store import ROWS, Store
from iy.finetune.trainer import Trainer
from iy.model import Personaliser
from iy.params import Buckets, Params
from tests import encoding
from tests.depth import depth
from tests.tiny import tiny_base

BUCKETS = {"step": 8, "ratio": 2.0, "resolutions": [1.0, 0.75]}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def tiny(base, empty_project) -> Params:
    wanted = encoding.settings(base)
    encoding.collection(wanted)
    return wanted


def load(wanted: Params, stage: str = "1"):
    return data.load_examples(wanted, wanted.finetune.stages[stage], load_base(wanted.base), 32)


def changed(wanted: Params, **finetune: object) -> Params:
    return wanted.model_copy(update={"finetune": wanted.finetune.model_copy(update=finetune)})


def test_batches_hold_what_the_encoders_say_of_sixteen_at_a_time(tiny):
    train, _ = load(tiny)
    opened = load_base(tiny.base)
    rows = records.read(data.photo_table(tiny), records.PHOTO, where=records.usable("train"))
    squares = [cut(storage.read_image(tiny.photos_dir, row), row["box"], 64, None).image for row in rows]
    assert len(rows) == len(train) == ROWS, "one batch exactly"
    every = np.arange(len(rows))
    batch = train.batch(every, train.reference, 1.0)
    assert torch.equal(batch.latents, encode_images(opened, to_pixels(squares)))
    captions = sorted({"", *(row["caption"] for row in rows)}, key=lambda text: (len(text), text))
    states = [encode_text(opened, captions[i : i + ROWS]) for i in range(0, len(captions), ROWS)]
    for i, row in enumerate(rows):
        number = captions.index(row["caption"])
        for name, (hidden, mask) in states[number // ROWS].items():
            length = int(mask[number % ROWS].sum())
            assert torch.equal(batch.text[name][0][i, :length], hidden[number % ROWS, :length])
            assert batch.text[name][1][i].sum() == length and not batch.text[name][0][i, length:].any()
    crop = reference_crop(tiny, tiny.photos_dir, rows[3])
    again = torch.nn.functional.interpolate(to_pixels([crop]), (32, 32), mode="bicubic", antialias=True).clamp(-1, 1)
    assert (batch.references[3, 0] - again[0]).abs().max() <= 1 / 255


def test_what_is_encoded_alone_is_shared_by_all_stages_and_does_not_depend_on_its_neighbours(tiny):
    alone = changed(tiny, encoding="alone")
    first, _ = load(alone, "1")
    before = encoding.encoded()
    third, _ = load(alone, "3")
    assert encoding.encoded() == before, "stage 3 trains on some of stage 1's photos"
    assert 0 < len(third) < len(first)
    ones = [third.batch(np.array([i]), third.reference[[i]], 1.0) for i in range(len(third))]
    shutil.rmtree(".iy/encoded")
    with pytest.raises(UserError, match="is gone: start the training again"):
        third.batch(np.array([0]), third.reference[:1], 1.0)
    again, _ = load(alone, "3")
    for i, one in enumerate(ones):
        other = again.batch(np.array([i]), again.reference[[i]], 1.0)
        assert torch.equal(one.latents, other.latents) and torch.equal(one.references, other.references)
        assert all(torch.equal(one.text[name][0], other.text[name][0]) for name in one.text)


def test_a_second_run_encodes_nothing_and_other_makers_something_else(tiny, monkeypatch):
    load(tiny)
    before = encoding.encoded()
    with monkeypatch.context() as patch:
        patch.setattr(encode.Encoder, "make", lambda *_: pytest.fail("it was there"))
        load(tiny)
    load(tiny.model_copy(update={"model": tiny.model.model_copy(update={"crop_margin": 1.5})}))
    new = {name.partition("-")[0] for name in set(encoding.encoded()) - set(before)}
    assert new == {"crops"}, "no text and no picture is encoded again for another crop"


@pytest.mark.slow
def test_workers_that_open_the_models_themselves_make_the_bytes_that_are_made_here(tiny, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.setattr(encode, "SHARD", ROWS)
    monkeypatch.setattr(encode, "ALONE", 0)
    load(tiny, "2")
    here = encoding.encoded()
    for kind in depth(("serial",), ("serial", "processes", "ray")):
        shutil.rmtree(".iy/encoded")
        load(tiny.model_copy(update={"workers": tiny.workers.model_copy(update={"map": kind, "count": 2})}), "2")
        assert encoding.encoded() == here


def test_a_shard_that_a_disk_cut_short_is_made_again(tiny, caplog):
    load(tiny)
    whole = encoding.encoded()
    name = max(whole, key=lambda one: len(whole[one]))
    Path(".iy/encoded", name).write_bytes(whole[name][: len(whole[name]) // 2])
    load(tiny)
    assert encoding.encoded() == whole and "cannot be read" in caplog.text


def test_rows_are_found_by_key_in_any_shard(tmp_path):
    names = [store.key(i) for i in range(50)]
    made = [
        {
            "x": torch.full((i % 3, 2), i, dtype=torch.bfloat16),
            "y": torch.tensor(i),
            "sizes": torch.full((6,), i, dtype=torch.int32),
        }
        for i in range(50)
    ]
    for part in (range(0, 20), range(20, 50)):
        held = [names[i] for i in part]
        several = ((held[i : i + ROWS], [made[j] for j in part[i : i + ROWS]]) for i in range(0, len(held), ROWS))
        store.write(store.shard_path(tmp_path, held), several)
    found = Store(tmp_path)
    numbers = found.find(store.keys(names))
    assert sorted(numbers) == list(range(50)) and found.find(store.keys([store.key("none")])).tolist() == [-1]
    for i in (0, 1, 17, 19, 20, 49):
        row = found.read(numbers[i])
        assert torch.equal(row["x"], made[i]["x"]) and row["x"].dtype == torch.bfloat16
        assert torch.equal(row["y"], made[i]["y"])
    asked = [49, 3, 20, 3]
    assert found.figures("sizes", numbers[asked]).tolist() == [[i] * 6 for i in asked]


def test_batches_made_ahead_are_those_made_in_time(tiny):
    train, _ = load(tiny)
    training = tiny.finetune.training
    plain = Loader(train, training, 0, 2, rows=slice(None), ahead=0, pinned=False)
    ahead = Loader(train, training, 0, 2, rows=slice(None), ahead=3, pinned=False)
    for block in (0, 2, 4, 10, 12, 2):  # a resumed training begins anywhere
        one, other = plain(block), ahead(block)
        assert torch.equal(one.batch.latents, other.batch.latents) and one.seed == other.seed
        assert torch.equal(one.batch.references, other.batch.references) and one.rng.random() == other.rng.random()
    ahead.close()


def test_an_epoch_of_shapes_shows_everything_in_blocks_of_one_shape():
    kind = np.array([5] * 7 + [9] * 4 + [2])
    order = Shapes(kind, 3)
    several = np.concatenate([rows_at(7, position, 3, order) for position in range(0, 2 * order.epoch, 3)])
    for rows in (several[: order.epoch], several[order.epoch :]):
        assert set(rows) == set(range(12))
        assert all(len(set(kind[block])) == 1 for block in rows.reshape(-1, 3))
    assert several[: order.epoch].tolist() != several[order.epoch :].tolist()
    assert rows_at(7, 6, 3, order).tolist() == several[6:9].tolist()


def test_buckets_train_on_photos_in_their_own_shape_and_say_which(tiny):
    wanted = changed(tiny, buckets=Buckets.model_validate(BUCKETS))
    train, held = load(wanted)
    assert held is not None and held.latents[torch.arange(len(held))].shape[2:] == (16, 16), "validation is on squares"
    blocks = [rows_at(0, 4 * block, 4, train.order) for block in range(train.order.epoch // 4)]
    batches = [train.batch(rows, train.reference[rows], 2.0) for rows in blocks]
    assert len({batch.latents.shape[2:] for batch in batches}) == 3
    for rows, batch in zip(blocks, batches, strict=True):
        assert batch.weight.shape[2:] == batch.latents.shape[2:]
        assert (4 * torch.tensor(batch.latents.shape[2:]) == batch.sizes[:, 4:]).all()
        box = train.box[rows]
        assert (box >= 0).all() and (box <= np.tile(batch.latents.shape[:1:-1], 2)).all(), "no face is cut"
    plan = wanted.finetune.stages["1"].model_copy(update={"steps": 3})
    opened = load_base(wanted.base)
    engine = Trainer(Personaliser(opened, wanted.model), opened.scheduler, train, held, wanted.finetune, plan, seed=0)
    assert np.isfinite([value for _, value in engine.train()["loss"]]).all()
