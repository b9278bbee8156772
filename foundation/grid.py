"""A fixed grid of pictures of held-out people, drawn while the device is still there and measured afterwards.

Every cell is drawn four times from the same noise: by the `base` alone, by the base that is told in `words` who it is,
by the `model` from the reference, and by the model from somebody else's (`shuffled`), so that what is measured is what
the reference brings.
"""

import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from foundation.album import Album
from foundation.lesson import reference
from foundation.renders import QUALITY, opened
from iy import lexicon, params
from iy.diffusion import Base
from iy.evaluate.prompts import Prompt, prompts
from iy.generate import Cell, draw
from iy.model import ImagineYourselfPipeline, Personaliser
from iy.seeds import cell_seed
from iy.storage import atomic_path

VARIANTS = ("base", "words", "model", "shuffled")
STEPS, GUIDANCE, TOGETHER = 16, 3.0, 96
CANDIDATES = 3  # people of one gender, age and ancestry: fewer make no choice


class Sitter(NamedTuple):
    """A held-out person: rows of the album. reference: the photo that is drawn from; others: where it is not seen."""

    person: int
    stratum: str
    reference: int
    others: list[int]


class Grid(NamedTuple):
    """What came back. pictures[variant] and photos: uint8 (N, 128, 128, 3), pictures sitter by sitter; cells as drawn:
    sitters x prompts. box, landmarks, embedding of the photos as in `Renders`."""

    sitters: list[Sitter]
    asked: list[dict[str, str]]
    pictures: dict[str, np.ndarray]
    photos: np.ndarray
    box: np.ndarray
    landmarks: np.ndarray
    embedding: np.ndarray


def people(album: Album) -> list[Sitter]:
    """Everybody with a reference and another photo in which a face was found."""
    rows: dict[int, list[int]] = {}
    for row in np.flatnonzero(album.renders.found).tolist():
        rows.setdefault(int(album.renders.person[row]), []).append(row)
    return [
        Sitter(person, album.stratum[first], first, others)
        for person, (first, *others) in sorted(rows.items())
        if others
    ]


def sitters(everybody: list[Sitter], count: int) -> list[Sitter]:
    """At most `count` people who have `CANDIDATES` - 1 others of their stratum to be taken for; the same every time.
    Where nobody has (a handful of people), the first of all."""
    strata = [one.stratum for one in everybody]
    able = [one for one in everybody if strata.count(one.stratum) >= CANDIDATES]
    return (able or everybody)[:count]


def cells(
    chosen: list[Sitter], asked: list[Prompt], album: Album, settings: params.Params, seed: int
) -> dict[str, list[Cell]]:
    """The same noise in every variant."""
    side = settings.base.image_size
    cut = [reference(album.renders, one.reference, settings.model, side) for one in chosen]
    found: dict[str, list[Cell]] = {name: [] for name in VARIANTS}
    for i, one in enumerate(chosen):
        who = {key: album.renders.attributes[one.reference].get(key) for key in lexicon.PERSON}
        who = {key: value for key, value in who.items() if value is not None}
        for k, prompt in enumerate(asked):
            noise = cell_seed(seed, str(one.person), k, 0)
            told = lexicon.describe(prompt.attributes | who, np.random.default_rng([seed, one.person, k]))
            found["base"].append(Cell(prompt.text, None, noise))
            found["words"].append(Cell(told, None, noise))
            found["model"].append(Cell(prompt.text, cut[i], noise))
            found["shuffled"].append(Cell(prompt.text, cut[(i + 1) % len(cut)], noise))
    return found


def draw_grid(
    model: Personaliser,
    base: Base,
    album: Album,
    settings: params.Params,
    people_drawn: int,
    per_person: int,
    path: Path,
) -> None:
    """Draw and write `path`, whole or not at all."""
    everybody = people(album)
    chosen, asked = sitters(everybody, people_drawn), prompts(per_person, settings.seed)
    pipeline: Any = ImagineYourselfPipeline.build(model.eval(), base)
    pictures = {
        name: draw(
            pipeline,
            several,
            steps=STEPS,
            guidance=GUIDANCE,
            identity_guidance=GUIDANCE,
            batch=min(TOGETHER, len(several)),
        )
        for name, several in cells(chosen, asked, album, settings, settings.seed).items()
    }
    rows = sorted(row for one in everybody for row in (one.reference, *one.others))
    place = {row: i for i, row in enumerate(rows)}
    moved = [
        one._replace(reference=place[one.reference], others=[place[row] for row in one.others]) for one in everybody
    ]
    write(path, moved, chosen, asked, pictures, album, rows)


def write(path: Path, everybody, chosen, asked, pictures, album: Album, rows: list[int]) -> None:
    drawn, ends = webp([image for name in VARIANTS for image in pictures[name]])
    photos, photo_ends = webp(list(album.renders.images[rows]))
    about = {
        "people": [one._asdict() for one in everybody],
        "drawn": [one.person for one in chosen],
        "asked": [prompt.attributes for prompt in asked],
        "texts": [prompt.text for prompt in asked],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as aside, open(aside, "wb") as file:
        np.savez(
            file,
            about=np.frombuffer(json.dumps(about).encode(), np.uint8),
            drawn=drawn,
            ends=ends,
            photos=photos,
            photo_ends=photo_ends,
            box=album.renders.box[rows],
            landmarks=album.renders.landmarks[rows],
            embedding=album.renders.embedding[rows],
        )


def webp(images: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    files = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "WEBP", quality=QUALITY)
        files.append(buffer.getvalue())
    return np.frombuffer(b"".join(files), np.uint8), np.cumsum([len(one) for one in files])


def read(path: Path) -> tuple[Grid, list[Sitter]]:
    """The grid, and everybody of whom there are photos: its sitters first come from them."""
    with np.load(path) as stored:
        about = json.loads(stored["about"].tobytes())
        drawn = pictures_in(stored["drawn"], stored["ends"])
        photos = pictures_in(stored["photos"], stored["photo_ends"])
        box, landmarks, embedding = (stored[name] for name in ("box", "landmarks", "embedding"))
    everybody = [Sitter(**one) for one in about["people"]]
    known = {one.person: one for one in everybody}
    parts = np.array_split(drawn, len(VARIANTS))
    grid = Grid(
        [known[person] for person in about["drawn"]],
        about["asked"],
        dict(zip(VARIANTS, parts, strict=True)),
        photos,
        box,
        landmarks,
        embedding,
    )
    return grid, everybody


def pictures_in(data: np.ndarray, ends: np.ndarray) -> np.ndarray:
    raw, starts = data.tobytes(), [0, *ends[:-1]]
    return np.stack([opened(raw[start:end]) for start, end in zip(starts, ends, strict=True)])
