"""Model folders in S3: `path: s3://bucket/folder` in the settings, in place of a local folder or a hub id.

What a folder holds is fetched once, and again when it changed there.
"""

import json
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from iy import s3
from iy.errors import UserError
from iy.storage import atomic_path, write_json

CACHE = Path(".iy", "models")
KINDS = {".json", ".txt", ".model", ".safetensors"}  # configuration, tokenizers, weights: no pickles
TAGS = "tags.json"


def local(path: str, subfolder: str | None, key: str, fetched: bool = False) -> str:
    """The folder that stands for `path` on this machine; itself unless it lies in S3.

    key: the setting, for errors. fetched: take what was fetched before and ask nobody.
    """
    if not path.startswith(s3.SCHEME):
        return path
    bucket, root = s3.place(path, f"base.{key}")
    below = "/".join(part for part in (root, subfolder) if part)
    url = f"{s3.SCHEME}{bucket}/{below}"
    if fetched and not (CACHE / bucket / below / TAGS).exists():
        raise UserError(f"base.{key}: {url} is not on this machine yet: open it once without local_files_only")
    if fetched:
        return str(CACHE / bucket / root)
    with s3.told(url, f"base.{key}"):
        if not fetch(bucket, below, CACHE / bucket / below):
            raise UserError(f"base.{key}: {url} holds no model files")
    return str(CACHE / bucket / root)


def fetch(bucket: str, prefix: str, folder: Path) -> int:
    """Bring the model files right below `prefix` to `folder`, those that are not there as they are in the bucket.

    How many there are.
    """
    store, tags = s3.client(), folder / TAGS
    there = {PurePosixPath(item.key).name: item for item in s3.listed(store, bucket, prefix, below=False)}
    there = {name: item for name, item in there.items() if Path(name).suffix in KINDS and name != TAGS}
    known = json.loads(tags.read_text()) if tags.exists() else {}
    missing = [name for name, item in there.items() if not (folder / name).exists() or known.get(name) != item.etag]
    size = sum(there[name].size for name in missing)
    with tqdm(total=size, desc=prefix, unit="B", unit_scale=True, disable=not missing) as bar:
        for name in missing:
            with atomic_path(folder / name) as aside:
                store.download_file(bucket, there[name].key, str(aside), Callback=bar.update)
    if missing:
        write_json(tags, {name: item.etag for name, item in there.items()})
    return len(there)
