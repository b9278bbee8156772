"""Every test runs from the project root with one torch thread, without telemetry and the network's model hubs."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from tests.depth import depth

ROOT = Path(__file__).resolve().parents[1]
os.environ.update(
    {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "true",
        "DVC_NO_ANALYTICS": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "TOKENIZERS_PARALLELISM": "false",
        "IY_KEYS": str(ROOT / ".iy" / "tests" / "keys"),  # pictures are signed, and never by the user's own key
        "SOURCE_DATE_EPOCH": "1795737600",  # all at one time: equal pictures have equal bytes
    }
)

# A shell's background job ignores Ctrl-C, and so would its children.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, those that may take longest before all, so that no worker is left alone with
    them at the end."""
    longest: dict[Path, float] = {}
    for item in items:
        if item.get_closest_marker("slow"):
            limit = item.get_closest_marker("timeout")
            longest[item.path] = max(longest.get(item.path, 0.0), limit.args[0] if limit else 0.0)
    items.sort(key=lambda item: -longest.get(item.path, -1.0))


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(autouse=True)
def from_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A folder with the project's settings and nothing else, made the current one: tests may edit or break it."""
    (tmp_path / "profiles").mkdir()
    for name in ("params.yaml", *(f"profiles/{path.name}" for path in (ROOT / "profiles").glob("*.yaml"))):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module", params=depth(["sdxl"], ["studio", "sdxl"]))
def published(request, tmp_path_factory) -> tuple[Path, str]:
    """A folder with a pipeline of diffusers and an IP-Adapter for it, and the pipeline's class."""
    from tests.pair_models import publish

    return publish(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture
def empty_project(tmp_path, monkeypatch) -> Path:
    """An empty folder, made the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tiny_project(empty_project):
    """Settings of real photographs of three training people and of a tiny random model, which draws no faces."""
    import torch

    from tests import pairs

    torch.set_num_threads(1)
    return pairs.make(empty_project / "base")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """An S3 client, of a store with a bucket `models`; the environment says where it is."""
    from tests import s3_store

    with s3_store.running(tmp_path_factory.mktemp("s3")) as client:
        yield client


settings.register_profile("steady", deadline=None)  # a busy machine is no fault of what is tested
settings.load_profile("steady")
