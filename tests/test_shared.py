"""Machines that share no disk share what is encoded in a bucket; an erasure empties it."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from iy.diffusion import load_base
from iy.erasure import encoded
from iy.finetune import data, encode
from tests import encoding
from tests.tiny import tiny_base


@pytest.fixture
def tiny(empty_project, store):
    torch.set_num_threads(1)
    bucket = f"encoded-{os.getpid()}"
    store.create_bucket(Bucket=bucket)
    store.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    wanted = encoding.settings(tiny_base(empty_project / "base"), store=f"s3://{bucket}/team")
    encoding.collection(wanted, people=3, each=2)
    return wanted, bucket


def load(wanted):
    return data.load_examples(wanted, wanted.finetune.stages["1"], load_base(wanted.base), 32)


def test_another_machine_fetches_what_it_needs_and_makes_nothing(tiny, store, monkeypatch):
    wanted, bucket = tiny
    load(wanted)
    made = encoding.encoded()
    shutil.rmtree(".iy/encoded")
    with monkeypatch.context() as patch:
        patch.setattr(encode.Encoder, "make", lambda *_: pytest.fail("it was in the bucket"))
        load(wanted)
    assert encoding.encoded() == made
    store.put_object(Bucket=bucket, Key="team/latents.txt", Body=b"somebody else's")
    encoded.remove(f"s3://{bucket}/team")
    found = store.list_object_versions(Bucket=bucket)
    assert [one["Key"] for one in found.get("Versions", [])] == ["team/latents.txt"] and "DeleteMarkers" not in found


def test_the_stores_of_all_profiles_are_erased(project):
    assert encoded.places() == []
    path = Path("profiles/smoke.yaml")
    path.write_text(path.read_text().replace("\n  store: null", "\n  store: s3://faces/encoded"))
    assert encoded.places() == ["s3://faces/encoded"]
