"""`iy push` and `iy pull`: a finetuned model and its reports to S3 and back, whole and checked.

s3://bucket/folder/manifest.json     every file's sha256 and size; written last, so that what it names is there
s3://bucket/folder/files/<sha256>    the files' bytes: what is there already is not sent again
"""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from iy import s3
from iy.errors import UserError
from iy.params import Params
from iy.storage import atomic_folder, file_sha256, sha256

MANIFEST, STREAMS = "manifest.json", 8


def pushed(settings: Params) -> dict[str, Path]:
    """What is sent: stage 4's bundle and every report, by their place in the project."""
    bundle = settings.bundle_dir(4)
    if not (bundle / "config.json").is_file():
        raise UserError(f"{bundle} holds no finetuned model: make one with `iy run`")
    roots = [bundle, Path("reports", settings.profile)]
    return {path.as_posix(): path for root in roots for path in sorted(root.rglob("*")) if path.is_file()}


def push(settings: Params, url: str) -> tuple[int, int]:
    """How many files the model and its reports have, and how many of them were not there yet."""
    bucket, folder = s3.place(url, "push")
    files = pushed(settings)
    manifest = {name: {"sha256": file_sha256(path), "size": path.stat().st_size} for name, path in files.items()}
    by_hash = {one["sha256"]: files[name] for name, one in manifest.items()}
    with s3.told(url, "push", "send to"):
        store = s3.client(STREAMS)
        there = {PurePosixPath(item.key).name: item.size for item in s3.listed(store, bucket, below(folder, "files"))}
        missing = {key: path for key, path in by_hash.items() if there.get(key) != path.stat().st_size}
        with ThreadPoolExecutor(STREAMS) as pool, tqdm(total=len(missing), desc="push") as bar:
            for _ in pool.map(lambda one: send(store, bucket, below(folder, "files", one[0]), one[1]), missing.items()):
                bar.update()
        text = json.dumps({"profile": settings.profile, "files": manifest}, indent=1, sort_keys=True).encode()
        store.put_object(Bucket=bucket, Key=below(folder, MANIFEST), Body=text)
    return len(files), len(missing)


def send(store: Any, bucket: str, key: str, path: Path) -> None:
    """In parallel parts when it is large; the store compares checksums."""
    store.upload_file(str(path), bucket, key)


def pull(url: str, out: Path) -> int:
    """Bring a pushed model to the folder `out`, which appears whole or not at all; how many files it has."""
    bucket, folder = s3.place(url, "pull")
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty: name a folder that does not exist yet")
    with s3.told(url, "pull"):
        store = s3.client(STREAMS)
        files = read_manifest(store, bucket, folder, url)
        with (
            atomic_folder(out) as aside,
            ThreadPoolExecutor(STREAMS) as pool,
            tqdm(total=len(files), desc="pull") as bar,
        ):
            for _ in pool.map(lambda one: fetch(store, bucket, folder, aside, *one), files.items()):
                bar.update()
    return len(files)


def read_manifest(store: Any, bucket: str, folder: str, url: str) -> dict[str, str]:
    """sha256 by file name; a name that leads out of the folder is refused."""
    found = {item.key for item in s3.listed(store, bucket, folder, below=False)}
    if below(folder, MANIFEST) not in found:
        raise UserError(f"pull: {url} holds no pushed model: it has no {MANIFEST}")
    try:
        files = {
            name: str(one["sha256"])
            for name, one in json.loads(s3.contents(store, bucket, below(folder, MANIFEST)))["files"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"pull: {url}/{MANIFEST} is not a manifest of `iy push`") from None
    for name in files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts:
            raise UserError(f"pull: {url}/{MANIFEST} names {name!r}, which leads out of the folder")
    return files


def fetch(store: Any, bucket: str, folder: str, out: Path, name: str, digest: str) -> None:
    data = s3.contents(store, bucket, below(folder, "files", digest))
    if sha256(data) != digest:
        raise UserError(f"pull: {name} is not what was pushed: push it again")
    path = out / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def below(*parts: str) -> str:
    return "/".join(part for part in parts if part)
