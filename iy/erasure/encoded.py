"""What training had encoded and sent to S3 (`finetune.store`): its rows name nobody, so that all of it goes."""

import re
from collections.abc import Iterator
from typing import Any

from iy import params, s3

SETTING = "finetune.store"
OWN = re.compile(r"(?:latents|texts|crops)-[0-9a-f]{16}/[0-9a-f]{32}\.arrow(?:\.keys)?")  # nothing else is touched


def places() -> list[str]:
    """The stores that the profiles name."""
    named = {params.load(profile).finetune.store for profile in params.profiles()}
    return sorted(one for one in named if one is not None)


def remove(url: str) -> None:
    """Every version of every shard in a store."""
    bucket, folder = s3.place(url, SETTING)
    client = s3.client()
    with s3.told(url, SETTING, "erase"):
        for key, version in versions(client, bucket, f"{folder}/" if folder else ""):
            client.delete_object(Bucket=bucket, Key=key, **({"VersionId": version} if version else {}))


def versions(client: Any, bucket: str, start: str) -> Iterator[tuple[str, str | None]]:
    """Keys and versions of what is there and of what was: in a bucket that keeps versions, deleting hides the last."""
    for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=start):
        for one in (*page.get("Versions", []), *page.get("DeleteMarkers", [])):
            if OWN.fullmatch(one["Key"].removeprefix(start)):
                yield one["Key"], one["VersionId"]
    for item in list(s3.listed(client, bucket, start.rstrip("/"))):
        if OWN.fullmatch(item.key.removeprefix(start)):
            yield item.key, None
