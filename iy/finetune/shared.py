"""A copy of the encoded rows in S3, for machines that share no disk: `finetune.store: s3://bucket/folder`.

What a run needs is fetched before anything is made, shard by shard, to `.iy/encoded`, which training reads; what it
makes is sent. Beside a shard lie its keys, so that nobody fetches what they do not need.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from iy import s3
from iy.finetune import store
from iy.storage import atomic_path

SETTING = "finetune.store"
KEYS = ".keys"
STREAMS = 8


class Shared:
    """The shards below a folder of a bucket;"""

    def __init__(self, url: str):
        self.url = url
        self.bucket, self.folder = s3.place(url, SETTING)
        self.client = s3.client(STREAMS)

    def fetch(self, folder: Path, wanted: np.ndarray) -> None:
        """Bring to `folder`, a local one of the same name, the shards that hold wanted keys and are not there."""
        with s3.told(self.url, SETTING):
            below = f"{self.key(folder)}/"
            names = [item.key for item in s3.listed(self.client, self.bucket, below.rstrip("/"), below=False)]
            absent = [
                name.removesuffix(KEYS)
                for name in (one.removeprefix(below) for one in names if one.endswith(KEYS))
                if not (folder / name.removesuffix(KEYS)).exists()
            ]
            with ThreadPoolExecutor(STREAMS) as threads:
                for _ in threads.map(lambda name: self.fetch_one(folder / name, wanted), absent):
                    pass

    def fetch_one(self, path: Path, wanted: np.ndarray) -> None:
        raw = s3.contents(self.client, self.bucket, self.key(path) + KEYS)
        if np.isin(np.frombuffer(raw, f"S{store.KEY}"), wanted).any():
            with atomic_path(path) as aside:
                self.client.download_file(self.bucket, self.key(path), str(aside))

    def send(self, path: Path) -> None:
        """A shard that was made; its keys last, by which it is known."""
        held = store.keys_of(path)
        with s3.told(self.url, SETTING, "send to"):
            self.client.upload_file(str(path), self.bucket, self.key(path))
            self.client.put_object(Bucket=self.bucket, Key=self.key(path) + KEYS, Body=held.tobytes())

    def key(self, path: Path) -> str:
        """Where a local folder of shards, or one of its shards, lies in the bucket."""
        last = path.parts[-2:] if path.suffix == store.ENDING else path.parts[-1:]
        return "/".join([part for part in (self.folder, *last) if part])
