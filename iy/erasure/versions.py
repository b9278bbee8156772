"""Older versions of the data: DVC's cache and its remotes, an S3 bucket's own old versions included."""

import json
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

from iy import s3
from iy.erasure.tables import Table, parse
from iy.errors import UserError, one_line

PAGE = "index.html"  # a folder with one is a report, and shows faces


class Folder(NamedTuple):
    """One version of a folder that DVC keeps: its own object, its files' objects, and the tables among them."""

    own: str
    objects: set[str]
    tables: list[Table]
    report: bool


class Place(NamedTuple):
    """The cache or a remote: its name, and the versions of folders in it."""

    name: str
    folders: list[Folder]

    def objects(self, photos: set[str]) -> set[str]:
        """What holds one of the photos, or may: tables, the files that lie beside them, and reports. What a folder
        that holds none also has, such as equal settings, stays."""
        held = [one for one in self.folders if one.report or any(table.holding(photos) for table in one.tables)]
        kept = {one for folder in self.folders if folder not in held for one in folder.objects}
        return {one for folder in held for one in (folder.own, *folder.objects)} - kept


def places() -> list[Place]:
    """Every place that DVC keeps data in, with what lies there."""
    return [Place(name, list(folders(store, name))) for name, store in stores()]


def stores() -> Iterator[tuple[str, Any]]:
    """The cache and the remotes, by name; none in a project without DVC."""
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        repo = Repo()
    except NotDvcRepoError:
        return
    with closing(repo):
        yield "DVC cache", repo.cache.local
        for name in repo.config["remote"]:
            yield f"DVC remote {name}", repo.cloud.get_remote_odb(name)


def folders(store: Any, name: str) -> Iterator[Folder]:
    """The folders' versions in a store, each with its tables read."""
    try:
        owns = sorted(one for one in store.all() if one.endswith(".dir"))
    except FileNotFoundError:
        return
    except Exception as error:  # whatever a file system may raise
        raise UserError(
            f"{name} cannot be read ({one_line(error)}): nothing was erased; check the connection and the keys"
        ) from None
    for own in owns:
        entries = json.loads(store.fs.cat_file(store.oid_to_path(own)))
        files = {entry["relpath"]: entry["md5"] for entry in entries}
        there = {path: oid for path, oid in files.items() if path.endswith(".parquet") and store.exists(oid)}
        tables = [
            table
            for path, oid in there.items()
            if (table := parse(store.fs.cat_file(store.oid_to_path(oid)), f"{name}: {path}")) is not None
        ]
        yield Folder(own, set(files.values()), tables, PAGE in files)


def remove(store: Any, objects: Iterable[str]) -> None:
    """Take objects out of a store. What is gone already stays gone: an erasure that was killed goes on."""
    for oid in objects:
        path = store.oid_to_path(oid)
        if store.fs.protocol in ("s3", "s3a"):
            remove_versions(store.fs, path)
        elif store.exists(oid):
            store.delete(oid)


def remove_versions(files: Any, path: str) -> None:
    """Every version of an object in S3: in a bucket that keeps them, deleting alone only hides the last."""
    bucket, _, key = path.removeprefix(s3.SCHEME).partition("/")
    options = files.fs_args.get("client_kwargs", {})
    client = s3.client(endpoint=options.get("endpoint_url"))
    pages = client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=key)
    found = [
        one
        for page in pages
        for one in (*page.get("Versions", []), *page.get("DeleteMarkers", []))
        if one["Key"] == key
    ]
    for one in found:
        client.delete_object(Bucket=bucket, Key=key, VersionId=one["VersionId"])
    client.delete_object(Bucket=bucket, Key=key)
