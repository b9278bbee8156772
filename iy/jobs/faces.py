"""The faces that a table names: each photograph and person once, by the workers that curation has.

A face's crop lies as `<work>/faces/<hash>.png` until the pictures are drawn, so that a run that goes on finds it there.
"""

import json
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pyarrow.compute as pc
from tqdm import tqdm

from iy import names, records, workers
from iy.errors import UserError
from iy.faces import Analyser, Face, load_analyser
from iy.faces.crop import face_crop
from iy.generate.reference import admitted, read_file
from iy.jobs.orders import Source
from iy.model.bundle import read_config
from iy.params import Model, Params, parse
from iy.pictures import Limits
from iy.policy.rule import Policy, open_policy, rules, stamp
from iy.resume import digest
from iy.storage import file_sha256, png, read_image, sha256, write_bytes

FEW = 24  # faces that are found before workers have started


class Crop(NamedTuple):
    """A face as the model sees it: a PNG file, and the sha256 of its bytes."""

    path: Path
    sha256: str


class Job(NamedTuple):
    """One face to find. settings: resolved, as JSON; row: of a person's photo in the collection, else None.

    rule: stands for whose face may be drawn, see `iy.policy.rule.stamp`.
    """

    source: Source
    row: dict | None
    settings: str
    rule: str
    bundle: Path
    folder: Path


def find(wanted: Iterable[Source], settings: Params, bundle: Path, folder: Path) -> dict[Source, Crop | str]:
    """The crop of every source, or why there is none. Those already in `folder` are not cut again."""
    several, text = list(dict.fromkeys(wanted)), json.dumps(settings.resolved())
    rule = stamp(rules(settings))
    policy(text, rule)  # a missing pack or an empty list is one sentence here
    photos = collection(several, settings)
    found: dict[Source, Crop | str] = {}
    jobs = []
    for source in several:
        row = photos.get(source.name) if source.kind == "person" else None
        if isinstance(row, str):
            found[source] = row
        else:
            jobs.append(Job(source, row, text, rule, bundle, folder))
    few = settings.workers.model_copy(update={"map": "serial"}) if len(jobs) <= FEW else settings.workers
    answers = tqdm(workers.each(crop, jobs, few), "faces", len(jobs), mininterval=1, delay=1, disable=len(jobs) <= FEW)
    return found | dict(zip((job.source for job in jobs), answers, strict=True))


def crop(job: Job) -> Crop | str:
    """Cut one face, or say why it cannot be."""
    cv2.setNumThreads(1)
    settings = opened(job.settings)
    config = read_config(job.bundle)
    model, size = config["model"], config["base"].image_size
    try:
        photo = read_file(Path(job.source.name)) if job.row is None else job.row["id"].encode()
        how = [settings.usage, settings.faces.model_dump(), model.crop_margin, model.mask_face, size, job.rule]
        path = job.folder / f"{digest([job.source.kind, sha256(photo), how])}.png"
        if not path.exists():
            write_bytes(path, png(cut(job, photo, model, size)))
    except UserError as error:
        return str(error)
    return Crop(path, file_sha256(path))


def cut(job: Job, photo: bytes, model: Model, size: int) -> np.ndarray:
    """The masked crop, uint8 (size, size, 3): around the one face of a photograph, or where curate found it.

    Refused where the policy does, in both cases.
    """
    settings, name, reader = opened(job.settings), job.source.name, analyser(job.settings)
    rule = policy(job.settings, job.rule)
    if job.row is None:
        limits = Limits(settings.photos.maximum_pixels, settings.photos.maximum_side)
        return admitted(photo, name, limits, reader, model, size, rule)
    face, image = Face.of(job.row), read_image(settings.photos_dir, job.row)
    rule.face(lambda: reader.embed(image, face), name)
    return face_crop(image, face.box, face.landmarks, size, model.crop_margin, model.mask_face)


@cache
def opened(text: str) -> Params:
    return parse(json.loads(text), "settings")


@cache
def analyser(text: str) -> Analyser:
    settings = opened(text)
    return load_analyser(settings.faces, settings.usage, settings.device)


@lru_cache(1)
def policy(text: str, rule: str) -> Policy:
    """The policy of these settings with the lists for which `rule` stands."""
    return open_policy(rules(opened(text)), analyser(text))


def collection(several: Sequence[Source], settings: Params) -> dict[str, dict | str]:
    """The best accepted photo of every person that is asked for, or what is wrong with the name."""
    asked = {source.name for source in several if source.kind == "person"}
    if not asked:
        return {}
    table = settings.data_dir("curate") / "photos.parquet"
    if not table.exists():
        return dict.fromkeys(asked, f"there is no collection at {table}: run `iy run`, or name photographs instead")
    wanted = ["id", "person", "quality", "shard", "offset", "length", "box", "landmarks", "verdict"]
    accepted = pc.field("verdict") == records.ACCEPTED
    best: dict[str, dict] = {}
    known: set[str] = set()
    for rows in records.batches(table, records.PHOTO, wanted, where=accepted):
        for row in rows:
            known.add(row["person"])
            if row["person"] in asked and rank(row) > rank(best.get(row["person"])):
                best[row["person"]] = row
    return {name: best.get(name) or unknown(name, known, table) for name in asked}


def rank(row: dict | None) -> tuple[float, str]:
    """Of several photos that with the highest rank is taken: the one of the best quality."""
    return (-1.0, "") if row is None else (row["quality"] or 0.0, row["id"])


def unknown(name: str, known: set[str], table: Path) -> str:
    near = names.near(name, known)
    hint = f"is {near[0]!r} meant?" if near else "see its column person"
    return f"nobody is called {name!r:.60} among the accepted photos of {table}: {hint}"
