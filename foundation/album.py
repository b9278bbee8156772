"""Photos of people with their captions, as they travel to a machine without a renderer: an npz and a JSON per chunk."""

import gzip
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np

from foundation.captions import photographed
from foundation.renders import Group, Renders, mirrored, unpacked
from iy.errors import UserError
from iy.storage import atomic_path, write_bytes
from iy.studio.people import Person
from iy.studio.shots import Shot


class Album(NamedTuple):
    """captions, turned: `captions.CAPTIONS_OF_PHOTOS` of each photo, and of what a mirror shows of it.

    stratum: gender, age and ancestry of each photo's person, as one word.
    """

    renders: Renders
    captions: list[list[str]]
    turned: list[list[str]]
    stratum: list[str]


def write(folder: Path, chunk: Group, made: Path) -> list[Path]:
    """Put the renders in `made` (see `renders.store`) and what is said of them into `folder`: two files."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures, words = folder / made.name, folder / f"{made.stem}.json.gz"
    rows = [said(person, shot) for person, shots in chunk.jobs() for shot in shots]
    with atomic_path(pictures) as aside:
        shutil.copyfile(made, aside)
    write_bytes(words, gzip.compress(json.dumps(rows).encode(), mtime=0))
    return [pictures, words]


def said(person: Person, shot: Shot) -> dict:
    row, seed = person.attributes() | shot.attributes(), person.seed
    turned = row if shot.word else mirrored(row)
    return {
        "person": seed,
        "attributes": row,
        "word": shot.word,
        "stratum": f"{person.gender} {person.age} {person.ancestry}",
        "captions": photographed((row, shot.word, (seed, 0))),
        "turned": photographed((turned, shot.word, (seed, 1))),
    }


def read(folder: Path, people: int | None = None) -> Album:
    """Every chunk in `folder`, in the order of their names; of the first `people` alone, if a number is given."""
    words = sorted(folder.glob("*.json.gz"))
    if not words:
        raise UserError(f"{folder} holds no photos: unpack what `python -m foundation.pack` wrote there")
    images, parts, rows = [], {"box": [], "landmarks": [], "embedding": []}, []
    for path in words:
        rows += json.loads(gzip.decompress(path.read_bytes()))
        with np.load(path.with_name(path.name.replace(".json.gz", ".npz"))) as stored:
            images += unpacked(stored["webp"].tobytes(), stored["ends"])
            for name, several in parts.items():
                several.append(stored[name])
        if people and len({row["person"] for row in rows}) >= people:
            break
    known = list(dict.fromkeys(row["person"] for row in rows))[:people]
    kept = [i for i, row in enumerate(rows) if row["person"] in set(known)]
    joined = {name: np.concatenate(several)[kept] for name, several in parts.items()}
    rows = [rows[i] for i in kept]
    return Album(
        Renders(
            np.stack([images[i] for i in kept]),
            np.array([row["person"] for row in rows]),
            [row["attributes"] for row in rows],
            [row["word"] for row in rows],
            joined["box"],
            joined["landmarks"],
            joined["embedding"],
        ),
        [row["captions"] for row in rows],
        [row["turned"] for row in rows],
        [row["stratum"] for row in rows],
    )
