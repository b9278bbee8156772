"""Model folders in S3: `path: s3://bucket/folder` in the settings, in place of a local folder or a hub id.

What a folder holds is fetched once, and again when it changed there. Keys and the address of a store other than AWS come
from where boto3 looks for them (AWS_PROFILE, AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL …), never from the settings.
"""
import json
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from iy.errors import UserError
from iy.storage import atomic_path, write_json

CACHE = Path(".iy", "models")
KINDS = {".json", ".txt", ".model", ".safetensors"}     # configuration, tokenizers, weights: no pickles
SCHEME, TAGS = "s3://", "tags.json"


def local(path: str, subfolder: str | None, key: str) -> str:
    """The folder that stands for `path` on this machine; itself unless it lies in S3. `key`: the setting, for errors."""
    if not path.startswith(SCHEME):
        return path
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, root = path.removeprefix(SCHEME).strip("/").partition("/")
    if not bucket or ".." in PurePosixPath(root).parts:
        raise UserError(f"base.{key}: {path!r} is not s3://bucket/folder")
    below = "/".join(part for part in (root, subfolder) if part)
    try:
        fetch(bucket, below, CACHE / bucket / below)
    except (Boto3Error, BotoCoreError, ClientError) as error:
        raise UserError(f"base.{key}: cannot fetch {SCHEME}{bucket}/{below}: {' '.join(str(error).split())[:200]}: "
                        "check the bucket, your keys and AWS_ENDPOINT_URL") from None
    except FileNotFoundError:
        raise UserError(f"base.{key}: {SCHEME}{bucket}/{below} holds no model files") from None
    return str(CACHE / bucket / root)


def fetch(bucket: str, prefix: str, folder: Path) -> None:
    """Bring the model files right below `prefix` to `folder`, those that are not there as they are in the bucket."""
    import boto3

    store = boto3.Session().client("s3")
    there = {item["Key"]: item for item in listed(store, bucket, prefix)}
    if not there:
        raise FileNotFoundError(prefix)
    tags = folder / TAGS
    known = json.loads(tags.read_text()) if tags.exists() else {}
    missing = [key for key, item in there.items() if not (folder / name(key)).exists() or known.get(name(key)) != item["ETag"]]
    size = sum(there[key]["Size"] for key in missing)
    with tqdm(total=size, desc=prefix, unit="B", unit_scale=True, disable=not missing) as bar:
        for key in missing:
            with atomic_path(folder / name(key)) as aside:
                store.download_file(bucket, key, str(aside), Callback=bar.update)
    if missing:
        write_json(tags, {name(key): item["ETag"] for key, item in there.items()})


def listed(store: Any, bucket: str, prefix: str) -> list[dict]:
    pages = store.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/" if prefix else "",
                                                            Delimiter="/")
    items = [item for page in pages for item in page.get("Contents", [])]
    return [item for item in items if PurePosixPath(item["Key"]).suffix in KINDS and name(item["Key"]) != TAGS]


def name(key: str) -> str:
    return PurePosixPath(key).name
