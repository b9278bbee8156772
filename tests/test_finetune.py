"""The engine on a tiny random base and hand-made photos: it learns, resumes to the byte, refuses the untrainable."""

import contextlib
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from iy import records, storage, tracking
from iy.diffusion import load_base
from iy.errors import UserError
from iy.finetune import buckets, data, identity, run
from iy.finetune.checkpoint import load_checkpoint, save_checkpoint
from iy.finetune.examples import choose_references, face_map, random, rows_at
from iy.finetune.loss import snr_weight, target, weighted_mse
from iy.finetune.trainer import Trainer
from iy.model import Personaliser, bundle
from iy.params import Params, parse
from tests.tiny import tiny_base, tiny_settings

SIZE = 64


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """Photos of six people (four train, one validation, one test), three each, and pairs; curated and selected."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("project")
    tiny_base(folder / "base")
    with contextlib.chdir(folder):
        settings = tiny(folder)
        rng = np.random.default_rng(0)
        photos = [photo(rng, person, index) for person in range(6) for index in range(3)]
        photos[1] |= {"verdict": "rejected", "reason": "blurred"}
        write(settings.photos_dir, photos)
        records.write(settings.data_dir("curate") / "photos.parquet", rows(photos, records.PHOTO), records.PHOTO)
        pairs = [pair(rng, photos[index]) for index in (0, 3, 6, 12, 15)]
        write(settings.data_dir("synpairs"), pairs)
        records.write(settings.data_dir("synpairs") / "pairs.parquet", rows(pairs, records.PAIR), records.PAIR)
        records.write(settings.data_dir("select") / "real.parquet", rows(photos[3:9], records.PHOTO), records.PHOTO)
        records.write(settings.data_dir("select") / "pairs.parquet", rows(pairs[1:2], records.PAIR), records.PAIR)
    return folder


@pytest.fixture
def here(project, monkeypatch):
    monkeypatch.chdir(project)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield project
    for made in ("models", ".iy/resume"):
        shutil.rmtree(project / made, ignore_errors=True)


def tiny(folder: Path, **changes: object) -> Params:
    settings = tiny_settings(folder / "base")
    settings["finetune"]["checkpoint_every"] = 2
    settings["finetune"]["training"] |= {"batch": 3, "validate_every": 3, "validation_images": 2, **changes}
    for stage in settings["finetune"]["stages"].values():
        stage |= {"steps": 6, "warmup": 2, "learning_rate": 1e-3}
    settings["draw"]["steps"] = 2
    return parse(settings, "tiny")


def photo(rng: np.random.Generator, person: int, index: int) -> dict:
    image = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    box = [16.0, 12.0, 48.0, 52.0]
    return {
        "image": image,
        "id": f"photo{person}{index}",
        "person": f"p{person}",
        "caption": f"person {person} shot {index}",
        "box": box,
        "landmarks": [24, 28, 40, 28, 32, 36, 26, 44, 38, 44],
        "verdict": "accepted",
        "split": ("train",) * 4 + ("validation", "test"),
        "attributes": "{}",
    } | {"split": "train" if person < 4 else "validation" if person == 4 else "test"}


def pair(rng: np.random.Generator, reference: dict) -> dict:
    return {
        "image": rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8),
        "id": f"pair-{reference['id']}",
        "verdict": "accepted",
        "reference": reference["id"],
        "person": reference["person"],
        "caption": f"{reference['caption']} smiling",
    }


def write(folder: Path, made: list[dict]) -> None:
    members = storage.write_shard(
        folder / "00000.tar", [(f"{row['id']}.png", storage.png(row["image"])) for row in made]
    )
    for row, member in zip(made, members, strict=True):
        row |= member._asdict()


def rows(made: list[dict], schema) -> list[dict]:
    return [{key: value for key, value in row.items() if key in schema.names} for row in made]


def examples(settings: Params, stage: str):
    base = load_base(settings.base)
    return base, *data.load_examples(settings, settings.finetune.stages[stage], base, 32)


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): storage.file_sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_real_examples_are_accepted_train_photos_with_others_of_the_same_person(here):
    base, train, held = examples(tiny(here), "1")
    assert len(train) == 4 * 3 - 1 and len(held) == 3
    assert train.latents.shape == (11, 4, 16, 16) and train.crops.shape == (17, 3, 32, 32)
    assert [len(train.others[i]) for i in range(11)] == [1, 1] + [2] * 9, "the rejected photo is nobody's reference"
    assert all(train.reference[i] not in train.others[i] for i in range(11))
    np.testing.assert_allclose(train.box[0], [4, 3, 12, 13])
    batch = train.batch(np.array([0, 5]), train.reference[[0, 5]], 3.0)
    assert batch.references.shape == (2, 1, 3, 32, 32) and batch.references.abs().max() <= 1
    assert set(batch.text) == set(base.text) and all(mask.any(1).all() for _, mask in batch.text.values())


def test_pairs_take_the_photo_as_reference_and_the_synthetic_picture_as_target(here):
    settings = tiny(here)
    base, train, _ = examples(settings, "2")
    assert len(train) == 3, "pairs of validation and test people are left out"
    _, selected, _ = examples(settings, "4")
    assert len(selected) == 1
    row = records.read(settings.data_dir("synpairs") / "pairs.parquet", records.PAIR)[1]
    image = storage.read_image(settings.data_dir("synpairs"), row)
    from iy.diffusion import encode_images, to_pixels

    torch.testing.assert_close(
        train.latents[torch.tensor([1])], encode_images(base, to_pixels([image])), atol=1e-4, rtol=1e-4
    )
    assert choose_references(train, np.array([0, 1]), 1.0, random(0)).tolist() == train.reference[:2].tolist()


def test_square_keeps_the_face_and_moves_its_box():
    image = np.zeros((60, 120, 3), np.uint8)
    image[20:40, 80:100] = 255
    cut, box, sizes = buckets.cut(image, [80, 20, 100, 40], 30, None)
    assert cut.shape == (30, 30, 3)
    x0, y0, x1, y1 = box.round().astype(int)
    assert cut[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1].min() == 255 and cut.mean() < 255 * 0.13
    assert sizes.tolist() == [60, 120, 0, 30, 30, 30], "height and width, where the cut begins at its scale, the cut's"


def test_order_visits_every_example_once_an_epoch_and_follows_from_the_seed():
    seen = np.concatenate([rows_at(7, step * 3, 3, 10) for step in range(10)])
    assert all(sorted(seen[epoch * 10 : epoch * 10 + 10]) == list(range(10)) for epoch in range(3))
    assert seen[:10].tolist() != seen[10:20].tolist() and (rows_at(7, 9, 3, 10) == seen[9:12]).all()


def test_references_are_others_as_often_as_asked(here):
    _, train, _ = examples(tiny(here), "1")
    chosen = np.tile(np.arange(len(train)), 200)
    own = train.reference[chosen]
    assert (choose_references(train, chosen, 0.0, random(1)) == own).all()
    assert (choose_references(train, chosen, 1.0, random(1)) != own).all()
    assert abs((choose_references(train, chosen, 0.5, random(1)) != own).mean() - 0.5) < 0.05


def test_face_weight_counts_more_inside_and_leaves_the_mean():
    weights = face_map(np.array([1, 1, 3, 2.5], np.float32), (4, 4), 3.0)
    assert weights.mean() == pytest.approx(1) and weights[0, 1, 1] == pytest.approx(3 * weights[0, 0, 0].item())
    assert face_map(np.full(4, np.nan, np.float32), (4, 4), 3.0).eq(1).all()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_weights_and_targets_follow_the_schedule(prediction):
    import diffusers

    scheduler = diffusers.DDPMScheduler(prediction_type=prediction)
    t = torch.tensor([0, 500, 999])
    alpha = scheduler.alphas_cumprod[t]
    snr = alpha / (1 - alpha)
    expected = snr.clamp(max=5) / (snr if prediction == "epsilon" else snr + 1)
    torch.testing.assert_close(snr_weight(scheduler, t, 5.0), expected, rtol=1e-4, atol=1e-6)
    assert snr_weight(scheduler, t, None).tolist() == [1, 1, 1]
    latents, noise = torch.randn(2, 3, 4, 4, 4).unbind()
    a, s = alpha.sqrt().view(3, 1, 1, 1), (1 - alpha).sqrt().view(3, 1, 1, 1)
    wanted = noise if prediction == "epsilon" else a * noise - s * latents
    torch.testing.assert_close(target(scheduler, latents, noise, t), wanted)
    error = weighted_mse(latents + 2, latents, torch.ones(3, 1, 4, 4), torch.tensor([1.0, 0.0, 0.5]))
    assert error.item() == pytest.approx(4 * 0.5)


def trainer(settings: Params, base, train, held, **stage: object) -> Trainer:
    plan = settings.finetune.stages["1"].model_copy(update=stage)
    return Trainer(Personaliser(base, settings.model), base.scheduler, train, held, settings.finetune, plan, seed=0)


def test_the_loss_falls_and_only_trainable_weights_move(here):
    settings = tiny(here, ema_decay=0.5, validate_every=20, drop_text=0.0, drop_image=0.0, drop_both=0.0)
    base, train, _ = examples(settings, "1")
    engine = trainer(settings, base, train, train, steps=40, learning_rate=3e-3)
    frozen = {name: p.clone() for name, p in engine.model.named_parameters() if not p.requires_grad}
    engine.validate(0)
    curves = engine.train()
    start, *_, end = [value for _, value in curves["validation_loss"]]
    assert end < 0.97 * start, curves["validation_loss"]
    assert len(curves["loss"]) == 40
    assert all(torch.equal(p, frozen[name]) for name, p in engine.model.named_parameters() if not p.requires_grad)


def test_the_identity_loss_adds_to_the_error_where_the_reference_is_seen(here):
    torch.manual_seed(0)
    identity.save(identity.IdentityNet(4, 16), "identity")
    base, train, _ = examples(tiny(here), "1")
    batch, t = train.batch(np.arange(3), train.reference[:3], 1.0), torch.tensor([100, 100, 100])
    noise, never, always = (
        torch.randn_like(batch.latents),
        torch.zeros(3, dtype=torch.bool),
        torch.ones(3, dtype=torch.bool),
    )
    plain, heavy = (
        trainer(tiny(here, identity_model="identity", identity_weight=weight), base, train, None)
        for weight in (0.0, 1.0)
    )
    assert heavy.loss(batch, t, noise, never, never) > plain.loss(batch, t, noise, never, never)
    assert heavy.loss(batch, t, noise, never, always) == plain.loss(batch, t, noise, never, always)


def test_accumulated_batches_are_one_large_batch(here):
    """Two halves of a batch give the whole one's step: rows, noise and dropout differ, so compare gradients."""
    settings = tiny(here, accumulate=2)
    base, train, _ = examples(settings, "1")
    engine = trainer(settings, base, train, None)
    engine.optimizer.step = lambda: None
    engine.optimizer.zero_grad = lambda: None
    engine.train_step(3)
    summed = [p.grad.clone() for p in engine.weights.values()]
    for p in engine.weights.values():
        p.grad = None
    (sum(engine.batch_loss(3, part) for part in range(2)) / 2).backward()
    torch.nn.utils.clip_grad_norm_(engine.weights.values(), settings.finetune.training.clip_norm)
    for got, wanted in zip(summed, engine.weights.values(), strict=True):
        torch.testing.assert_close(got, wanted.grad, rtol=1e-3, atol=1e-6)


def test_a_half_precision_base_trains_with_full_precision_weights(here, request):
    from accelerate.state import AcceleratorState

    request.addfinalizer(AcceleratorState._reset_state)
    AcceleratorState._reset_state()
    settings = tiny(here, precision="bf16", validate_every=2)
    half = settings.model_copy(update={"base": settings.base.model_copy(update={"dtype": "bfloat16"})})
    base, train, held = examples(half, "1")
    engine = trainer(half, base, train, held, steps=2)
    curves = engine.train()
    assert np.isfinite([value for _, value in curves["loss"] + curves["validation_loss"]]).all()
    assert {weight.dtype for weight in engine.weights.values()} == {torch.float32}
    with pytest.raises(UserError, match="precision 'no' cannot train on a base of dtype bfloat16"):
        trainer(tiny(here), load_base(half.base), train, held)


def test_a_diverged_training_says_what_to_change(here):
    settings = tiny(here)
    base, train, _ = examples(settings, "1")
    engine = trainer(settings, base, train, None)
    next(iter(engine.weights.values())).data.fill_(float("nan"))
    with pytest.raises(UserError, match="learning_rate"):
        engine.train()


def child(work) -> int:
    """Exit status (negative: a signal) of `work` in a forked process: the real thing dies, the test does not."""
    process = os.fork()
    if process == 0:
        try:
            work()
            os._exit(0)
        except SystemExit as stop:
            os._exit(3 if stop.code else 0)
        finally:
            os._exit(4)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_interrupted_training_ends_with_the_bytes_of_an_undisturbed_one(here, number, monkeypatch):
    settings = tiny(here)
    run.run(settings, "1")
    undisturbed = digest(here / "models")
    assert {"tiny/finetune1/config.json", "tiny/finetune1/training.json", "tiny/finetune1/settings.json"} <= set(
        undisturbed
    )
    shutil.rmtree(here / "models")
    step = Trainer.train_step

    def die(self, number_of_step):
        if number_of_step == 4:
            os.kill(os.getpid(), number)
        return step(self, number_of_step)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", die)
        assert child(lambda: run.run(settings, "1")) == {signal.SIGKILL: -9, signal.SIGTERM: 3}[number]
    assert not (here / "models").exists(), "nothing half-made is where a bundle belongs"
    states = list((here / ".iy/resume/tiny").glob("finetune1-*/step-*"))
    assert [path.name for path in states] == [
        {signal.SIGKILL: "step-00000004", signal.SIGTERM: "step-00000005"}[number]
    ]
    assert {path.suffix for path in states[0].iterdir()} == {".safetensors", ".json"}, "no pickle"
    run.run(settings, "1")
    assert digest(here / "models") == undisturbed
    assert not list((here / ".iy/resume").rglob("*.safetensors")), "resume state goes when the bundle is there"


@pytest.mark.parametrize("damaged", ["weights.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_checkpoint_that_a_disk_cut_short_costs_time_and_nothing_else(damaged, share, here, tmp_path, caplog):
    tensors = {"w": torch.arange(6.0)}
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(3))])
    for step in (2, 4):
        save_checkpoint(
            tmp_path / str(step),
            step=step,
            weights={"w": tensors["w"] * step},
            ema=[tensors["w"] * step],
            ema_step=step,
            optimizer=optimizer,
            scaler=None,
            curves={},
        )
    (tmp_path / "2/step-00000002").rename(tmp_path / "4/step-00000002")
    file = tmp_path / "4/step-00000004" / damaged
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    read, averages = {"w": torch.zeros(6)}, [torch.zeros(6)]
    state = load_checkpoint(tmp_path / "4", weights=read, ema=averages, optimizer=optimizer)
    assert state is not None and state["step"] == 2 and torch.equal(read["w"], 2 * tensors["w"])
    assert "step-00000004 cannot be read" in caplog.text
    shutil.rmtree(tmp_path / "4/step-00000002")
    assert load_checkpoint(tmp_path / "4", weights=read, ema=averages, optimizer=optimizer) is None


def test_stages_follow_one_another_with_lineage(here):
    settings = tiny(here)
    run.run(settings, "1")
    with tracking.stage_run(settings, "finetune2") as tracked:
        run.run(settings, "2", tracked)
    first, second = (bundle.read_config(settings.bundle_dir(stage))["lineage"] for stage in (1, 2))
    assert first["parent"] is None and second["parent"] == run.folder_sha256(settings.bundle_dir(1))
    assert second["data"]["pairs"] == storage.file_sha256(settings.data_dir("synpairs") / "pairs.parquet")
    curves = json.loads((settings.bundle_dir(2) / "training.json").read_text())
    assert len(curves["loss"]) == 6 and [step for step, _ in curves["validation_loss"]] == [3, 6]
    client = tracking.connect()
    found = client.search_runs(
        [client.get_experiment_by_name("iy-tiny").experiment_id], "tags.`iy.stage` = 'finetune2'"
    )[0]
    assert len(client.get_metric_history(found.info.run_id, "loss")) == 6
    assert {entry.dataset.name for entry in found.inputs.dataset_inputs} == {"photos", "pairs"}
    assert any("validation" in file.path for file in client.list_artifacts(found.info.run_id, "images"))


def test_bad_starts_are_refused_in_one_sentence(here):
    settings = tiny(here)
    with pytest.raises(UserError, match="finetune1 is not a bundle"):
        run.run(settings, "2")
    changed = settings.model_copy(update={"finetune": settings.finetune.model_copy(update={"init": "pretrained"})})
    with pytest.raises(UserError, match="finetune.pretrained"):
        run.run(changed, "1")
    table = settings.data_dir("select") / "pairs.parquet"
    before = table.read_bytes()
    records.write(table, [], records.PAIR)
    try:
        with pytest.raises(UserError, match="nothing to train on"):
            examples(settings, "4")
    finally:
        table.write_bytes(before)


def test_settings_that_change_the_result_change_the_digest_and_others_do_not(here):
    settings = tiny(here)
    kept_often = settings.model_copy(update={"finetune": settings.finetune.model_copy(update={"checkpoint_every": 5})})
    assert run.stage_digest(kept_often, "1") == run.stage_digest(settings, "1")
    assert run.stage_digest(tiny(here, face_weight=5.0), "1") != run.stage_digest(settings, "1")
