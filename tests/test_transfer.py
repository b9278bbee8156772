"""A model goes to S3 and comes back the same, through a network that fails, or not at all."""
import json

import pytest

from iy import params, s3, transfer
from iy.errors import UserError
from tests.s3_store import Proxy, store  # noqa: F401 (a fixture)


@pytest.fixture
def model(project):
    """A project with a bundle and reports, one file of several megabytes."""
    for name, data in {"models/studio/finetune4/config.json": b"{}", "models/studio/finetune4/adapter.safetensors": bytes(9_000_000),
                       "models/studio/finetune3/config.json": b"another stage", "reports/studio/evaluate/index.html": b"<p>",
                       "reports/studio/evaluate/same.html": b"<p>"}.items():
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
    right = {name: data for name, data in tree(model).items() if name.startswith(("models/studio/finetune4", "reports"))}
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
    assert tree(model / "back") == {name: data for name, data in tree(model).items()
                                    if name.startswith(("models/studio/finetune4", "reports"))}


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
