"""S3, or anything that speaks its protocol.

Keys, region and the address of a store other than AWS come from where boto3 looks for them (AWS_PROFILE,
AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL …), never from the settings.
"""

import contextlib
import io
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from iy.errors import Unreachable, UserError, one_line

SCHEME = "s3://"
ATTEMPTS = 10  # of one request: the store may be busy, or away for half a minute
READ_SECONDS = 20  # without a byte until a connection counts as dead


class Item(NamedTuple):
    """One object; the etag changes when its bytes do."""

    key: str
    size: int
    etag: str


def place(url: str, setting: str) -> tuple[str, str]:
    """Bucket and folder (no slash at its ends) of s3://bucket/folder; `setting` is named when it is none."""
    bucket, _, folder = url.removeprefix(SCHEME).strip("/").partition("/")
    if not url.startswith(SCHEME) or not bucket or ".." in PurePosixPath(folder).parts:
        raise UserError(f"{setting}: {url!r} is not s3://bucket/folder")
    return bucket, folder


def client(connections: int = 10, endpoint: str | None = None) -> Any:
    """A client that tries again, and more slowly when the store asks for that. Threads may share it.

    `endpoint`: the store's address, where the environment does not name it.
    """
    import boto3
    from botocore.config import Config

    return boto3.Session().client(
        "s3",
        endpoint_url=endpoint,
        config=Config(
            retries={"total_max_attempts": ATTEMPTS, "mode": "adaptive"},
            connect_timeout=10,
            read_timeout=READ_SECONDS,
            max_pool_connections=connections,
        ),
    )


@contextlib.contextmanager
def told(url: str, setting: str, doing: str = "fetch") -> Iterator[None]:
    """What still fails after all attempts is one sentence; botocore's own never hold a key."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except (Boto3Error, BotoCoreError, ClientError) as error:
        why, refused = one_line(error), isinstance(error, (ClientError, NoCredentialsError))
        check = "the bucket and your keys" if refused else "the connection and AWS_ENDPOINT_URL"
        kind = UserError if refused and not busy(error) else Unreachable
        raise kind(f"{setting}: cannot {doing} {url}: {why}: check {check}") from None


def busy(error: Exception) -> bool:
    """Whether the store refused for want of itself: it asks to come later, or is broken now."""
    answer = getattr(error, "response", None) or {}
    return answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) in (429, 500, 502, 503, 504)


def listed(store: Any, bucket: str, folder: str, below: bool = True) -> Iterator[Item]:
    """The objects in `folder`, by name; with `below` those in its sub-folders too."""
    pages = store.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, Prefix=f"{folder}/" if folder else "", **({} if below else {"Delimiter": "/"})
    )
    for page in pages:
        for found in page.get("Contents", []):
            if not found["Key"].endswith("/"):  # what a console makes to show an empty folder
                yield Item(found["Key"], found["Size"], found["ETag"])


def size(store: Any, bucket: str, key: str) -> int:
    """An object's bytes, without fetching one."""
    return store.head_object(Bucket=bucket, Key=key)["ContentLength"]


def contents(store: Any, bucket: str, key: str) -> bytes:
    """The whole object, in parallel parts when it is large; what breaks off is asked for again, checksums compared."""
    from boto3.s3.transfer import TransferConfig

    out = io.BytesIO()
    store.download_fileobj(bucket, key, out, Config=TransferConfig(num_download_attempts=ATTEMPTS, use_threads=False))
    return out.getvalue()
