"""A model goes to S3 and comes back the same, through a network that fails, or not at all."""

import json
import sys

import pytest

from iy import params, s3, transfer
from iy.errors import UserError
from tests import toy_project
from tests.depth import depth
from tests.s3_store import Proxy


@pytest.fixture
def model(project):
    """A project with a bundle and reports, one file of several megabytes."""
    for name, data in {
        "models/studio/finetune4/config.json": b"{}",
        "models/studio/finetune4/adapter.safetensors": bytes(9_000_000),
        "models/studio/finetune3/config.json": b"another stage",
        "reports/studio/evaluate/index.html": b"<p>",
        "reports/studio/evaluate/same.html": b"<p>",
    }.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_bytes(data)
    return project


def tree(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_pulled_is_what_was_pushed_and_is_sent_once(store, model):
    settings = params.load()
    assert transfer.push(settings, "s3://models/pushed") == (4, 3), "equal files are one"
    assert transfer.push(settings, "s3://models/pushed") == (4, 0)
    assert transfer.pull("s3://models/pushed", model / "back") == 4
    right = {
        name: data for name, data in tree(model).items() if name.startswith(("models/studio/finetune4", "reports"))
    }
    assert tree(model / "back") == right
    (model / "reports/studio/evaluate/index.html").write_bytes(b"<p>new")
    assert transfer.push(settings, "s3://models/pushed") == (4, 1)
    with pytest.raises(UserError, match="back is not empty"):
        transfer.pull("s3://models/pushed", model / "back")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_failing_network_loses_nothing(store, model, monkeypatch, seed):
    monkeypatch.setattr(s3, "READ_SECONDS", 0.6)
    proxy = Proxy(int(store.meta.endpoint_url.rsplit(":", 1)[1]), share=0.2, seed=seed, stall=1.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.server_port}")
    try:
        transfer.push(params.load(), f"s3://models/trial{seed}")
        transfer.pull(f"s3://models/trial{seed}", model / "back")
    finally:
        proxy.shutdown()
        proxy.server_close()
    assert tree(model / "back") == {
        name: data for name, data in tree(model).items() if name.startswith(("models/studio/finetune4", "reports"))
    }


def test_what_was_changed_or_is_not_there_is_refused(store, model):
    settings = params.load()
    transfer.push(settings, "s3://models/changed")
    manifest = json.loads(s3.contents(store, "models", "changed/manifest.json"))
    page = manifest["files"]["reports/studio/evaluate/index.html"]
    store.put_object(Bucket="models", Key=f"changed/files/{page['sha256']}", Body=b"else")
    with pytest.raises(UserError, match="html is not what was pushed"):
        transfer.pull("s3://models/changed", model / "back")
    assert not (model / "back").exists(), "a model that is not whole is none"
    for name in ("../outside", "/etc/passwd", "a/../../b"):
        store.put_object(Bucket="models", Key="changed/manifest.json", Body=json.dumps({"files": {name: page}}))
        with pytest.raises(UserError, match="leads out of the folder"):
            transfer.pull("s3://models/changed", model / "back")
    with pytest.raises(UserError, match="holds no pushed model"):
        transfer.pull("s3://models/nothing", model / "back")
    (model / "models/studio/finetune4/config.json").unlink()
    with pytest.raises(UserError, match="finetune4 holds no finetuned model"):
        transfer.push(settings, "s3://models/pushed")


@pytest.mark.slow
@pytest.mark.parametrize("share", depth([0.2], [0.0, 0.2]))
def test_data_sets_go_to_a_dvc_remote_and_come_back_in_another_clone(store, tmp_path, share):
    """What fails is told by a non-zero exit; asked again, DVC sends and fetches what is missing. Nothing runs twice."""
    made, clone = toy_project.make(tmp_path / "made", steps=1), tmp_path / "clone"
    dvc = sys.executable, "-m", "dvc"
    toy_project.run(made, *dvc, "repro", "-q")
    proxy = Proxy(int(store.meta.endpoint_url.rsplit(":", 1)[1]), share=share, seed=4, stall=1.0)
    try:
        toy_project.run(made, *dvc, "remote", "add", "-d", "store", f"s3://models/dvc{share}")
        toy_project.run(made, *dvc, "remote", "modify", "store", "endpointurl", f"http://127.0.0.1:{proxy.server_port}")
        toy_project.run(made, "git", "add", "-A")
        toy_project.run(made, "git", "commit", "-qm", "made")
        until_done(made, *dvc, "push", "-q")
        toy_project.run(tmp_path, "git", "clone", "-q", str(made), str(clone))
        until_done(clone, *dvc, "pull", "-q")
    finally:
        proxy.shutdown()
        proxy.server_close()
    assert share == 0 or sum(proxy.failed.values()) > proxy.failed["none"], "there were faults"
    for folder in ("data", "reports"):
        assert tree(clone / folder) == tree(made / folder) != {}
    assert "up to date" in toy_project.run(clone, *dvc, "repro").stdout


def until_done(folder, *command: str) -> None:
    for _ in range(10):
        if toy_project.run(folder, *command, check=False).returncode == 0:
            return
    raise AssertionError(toy_project.run(folder, *command).stderr)
