"""Parts of the base in 8 bits, and parts that lie in an S3 store: a real one (SeaweedFS) answers here."""

import boto3
import pytest
import torch
from botocore.exceptions import ClientError

from iy import params
from iy.diffusion import encode_text, load_base
from iy.diffusion.int8 import Int8Linear
from iy.errors import UserError
from tests.s3_store import upload
from tests.tiny import tiny_base, tiny_settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("base"), like="sdxl")


def opened(folder, change=lambda base: None):
    settings = tiny_settings(folder)
    change(settings["base"])
    return load_base(params.parse(settings, "test").base)


def test_int8_weights_are_off_by_at_most_half_a_step():
    linear = torch.nn.Linear(40, 7)
    narrowed = Int8Linear(linear)
    steps = linear.weight.abs().amax(1, keepdim=True) / 127
    assert narrowed.weight.dtype == torch.int8
    assert ((narrowed.weight * narrowed.scale - linear.weight).abs() <= steps / 2 + 1e-7).all()
    x = torch.randn(3, 5, 40)
    bound = x.abs().sum(2, keepdim=True) * steps.T / 2
    assert ((narrowed(x) - linear(x)).abs() <= bound + 1e-5).all()


def test_encoders_asked_for_in_8_bits_are_and_say_nearly_the_same(folder):
    def ask(base):
        base["text"]["ul2"]["int8"] = base["text"]["clip"]["second"]["int8"] = True

    wide, narrow = opened(folder), opened(folder, ask)
    text = narrow.text
    assert not any(
        isinstance(part, torch.nn.Linear) for part in [*text["ul2"].modules(), *text["clip"].second.modules()]
    )
    assert any(isinstance(part, torch.nn.Linear) for part in text["byt5"].modules())
    size, before = (
        sum(x.numel() * x.element_size() for x in [*part.parameters(), *part.buffers()])
        for part in (text["ul2"].encoder.encoder.block, wide.text["ul2"].encoder.encoder.block)
    )
    assert size < 0.4 * before
    prompts = ["a calm woman", "an old man laughing"]
    for (name, (a, _)), (b, _) in zip(
        encode_text(wide, prompts).items(), encode_text(narrow, prompts).values(), strict=True
    ):
        difference = float((a - b).abs().max())
        assert difference < 0.1 * float(a.std()) and (difference > 0) == (name != "byt5"), name


@pytest.fixture
def uploaded(store, folder, tmp_path, monkeypatch):
    """The base in the store, beside a pickle; the current folder is an empty one."""
    monkeypatch.chdir(tmp_path)
    upload(store, folder, "base")
    store.put_object(Bucket="models", Key="base/unet/diffusion_pytorch_model.bin", Body=b"a pickle")
    return store


def in_s3(base, path="s3://models/base"):
    texts = base["text"].values()
    for part in (base["unet"], base["vae"], base["scheduler"], base["vision"], *texts, *(t["second"] for t in texts)):
        if part:
            part["path"] = path


def test_a_base_in_s3_is_the_local_one_and_is_fetched_once(uploaded, folder, tmp_path):
    here, there = opened(folder), opened(folder, in_s3)
    for name in ("unet", "vae", "vision", "text"):
        a, b = getattr(here, name).state_dict(), getattr(there, name).state_dict()
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / ".iy").rglob("*") if path.is_file()}
    assert files and not any(path.suffix == ".bin" for path in files)
    opened(folder, in_s3)
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert there.settings.unet.path == "s3://models/base", "a bundle names the store, not this machine's copy"


def test_what_changed_in_s3_is_fetched_again(uploaded, folder, tmp_path):
    opened(folder, in_s3)
    weights = next((tmp_path / ".iy").rglob("diffusion_pytorch_model.safetensors"))
    config = weights.with_name("config.json")
    before = weights.stat().st_mtime_ns
    key = f"base/{config.parent.name}/config.json"
    uploaded.put_object(Bucket="models", Key=key, Body=config.read_bytes() + b"\n")
    opened(folder, in_s3)
    assert config.read_bytes().endswith(b"\n\n") and weights.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("s3://models/nothing", "base.unet: s3://models/nothing/unet holds no model files"),
        ("s3://absent/base", "cannot fetch s3://absent/base/unet"),
        ("s3://models/../base", "is not s3://bucket/folder"),
    ],
)
def test_what_cannot_be_fetched_is_said(uploaded, folder, path, said):
    with pytest.raises(UserError, match=said):
        opened(folder, lambda base: base["unet"].update(path=path))


def test_wrong_keys_are_said_without_the_keys(uploaded, folder, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    with pytest.raises(ClientError):
        boto3.Session().client("s3").list_objects_v2(Bucket="models")
    with pytest.raises(UserError, match="base.unet: cannot fetch") as said:
        opened(folder, lambda base: base["unet"].update(path="s3://models/base"))
    assert "secret" not in str(said.value) and "a-key" not in str(said.value)
