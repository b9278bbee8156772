"""The renders that the foundation learns from: people who appear nowhere else, with everything known exactly.

People are numbered by their seed; the foundation owns those below `FIRST_RESERVED`, the photo source starts there. A
render is kept as WebP: as a collection is, and small enough to be taken to another machine.
"""

import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

import iy.studio
from iy import lexicon, params
from iy.storage import atomic_path, sha256
from iy.studio.people import Person, sample_person
from iy.studio.shots import Shot, sample_shot
from iy.workers import each

FIRST_RESERVED = 1_000_000
CHUNK = 100  # people per file
SIDE, QUALITY = 128, 92  # pixels, WebP's
SHOT_SEEDS = 1009  # shot seeds of one person start this far from the next one's


class Group(NamedTuple):
    """`people` persons from seed `first`, `shots` renders each."""

    first: int
    people: int
    shots: int

    def chunks(self) -> Iterator["Group"]:
        for start in range(0, self.people, CHUNK):
            yield Group(self.first + start, min(CHUNK, self.people - start), self.shots)

    def jobs(self) -> list[tuple[Person, list[Shot]]]:
        return [
            (sample_person(seed), [sample_shot(seed * SHOT_SEEDS + k) for k in range(self.shots)])
            for seed in range(self.first, self.first + self.people)
        ]


class Renders(NamedTuple):
    """images uint8 (N, 128, 128, 3); person int (N,); attributes: one dict of lexicon values per render; words: what is
    written on the clothes, "" = nothing. box float32 (N, 4) and landmarks float32 (N, 5, 2), in pixels, and embedding
    float32 (N, 128), the filtering recogniser's: NaN, NaN and zeros where no face is found.
    """

    images: np.ndarray
    person: np.ndarray
    attributes: list[dict[str, str]]
    words: list[str]
    box: np.ndarray
    landmarks: np.ndarray
    embedding: np.ndarray

    @property
    def found(self) -> np.ndarray:
        return np.isfinite(self.box[:, 0])

    @property
    def turns(self) -> np.ndarray:
        """Whether a mirror image is as good as the render (N,): letters would be learnt backwards."""
        return np.array([not word for word in self.words])

    @property
    def turned(self) -> list[dict[str, str]]:
        """The attributes of the mirror images, or of the renders that have none."""
        pairs = zip(self.attributes, self.turns, strict=True)
        return [mirrored(row) if turns else row for row, turns in pairs]


def render(folder: Path, group: Group, workers: params.Workers) -> Renders:
    """The renders of a group."""
    make(folder, group, workers)
    return read([chunk_path(folder, chunk) for chunk in group.chunks()], group)


def make(folder: Path, group: Group, workers: params.Workers) -> None:
    """Put the renders of a group into `folder`; chunks already there are not made again."""
    assert group.first + group.people <= FIRST_RESERVED
    missing = [chunk for chunk in group.chunks() if not chunk_path(folder, chunk).exists()]
    made = each(photograph, [job for chunk in missing for job in chunk.jobs()], workers, chunk=5)
    for chunk in tqdm(missing, "rendering", unit=f"x{CHUNK} people"):
        store(chunk_path(folder, chunk), [one for _ in range(chunk.people) for one in next(made)])


def chunk_path(folder: Path, chunk: Group) -> Path:
    return folder / looks() / f"{chunk.first:06d}-{chunk.people}x{chunk.shots}.npz"


def store(path: Path, made: list[tuple[bytes, np.ndarray, np.ndarray, np.ndarray]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    files, box, landmarks, embedding = zip(*made, strict=True)
    with atomic_path(path) as aside, open(aside, "wb") as file:
        np.savez(
            file,
            webp=np.frombuffer(b"".join(files), np.uint8),
            ends=np.cumsum([len(one) for one in files]),
            box=np.stack(box),
            landmarks=np.stack(landmarks),
            embedding=np.stack(embedding),
        )


def photograph(job: tuple[Person, list[Shot]]) -> list[tuple[bytes, np.ndarray, np.ndarray, np.ndarray]]:
    """WebP, box, landmarks and embedding of every shot of a person."""
    from iy.studio.render import _studio

    person, shots = job
    found = []
    for shot in shots:
        buffer = io.BytesIO()
        Image.fromarray(_studio().render(person, shot, SIDE)).save(buffer, "WEBP", quality=QUALITY, method=6)
        found.append((buffer.getvalue(), *face(opened(buffer.getvalue()))))
    return found


def face(photo: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    faces = analyser().detect(photo)
    if not faces:
        return np.full(4, np.nan, np.float32), np.full((5, 2), np.nan, np.float32), np.zeros(128, np.float32)
    first = faces[0]
    return np.float32(first.box), np.float32(first.landmarks), np.float32(analyser().embed(photo, first))


@cache
def analyser():
    from iy.faces import load_analyser

    settings = params.load("studio")
    return load_analyser(settings.faces, settings.usage, settings.device)


def opened(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def read(paths: list[Path], group: Group) -> Renders:
    images, parts = [], {"box": [], "landmarks": [], "embedding": []}
    for path in tqdm(paths, "reading renders"):
        with np.load(path) as stored:
            images += unpacked(stored["webp"].tobytes(), stored["ends"])
            for name, several in parts.items():
                several.append(stored[name])
    pairs = [(person, shot) for person, shots in group.jobs() for shot in shots]
    return Renders(
        np.stack(images),
        np.array([person.seed for person, _ in pairs]),
        [person.attributes() | shot.attributes() for person, shot in pairs],
        [shot.word for _, shot in pairs],
        *(np.concatenate(parts[name]) for name in ("box", "landmarks", "embedding")),
    )


def unpacked(data: bytes, ends: np.ndarray) -> list[np.ndarray]:
    starts = [0, *ends[:-1]]
    return [opened(data[start:end]) for start, end in zip(starts, ends, strict=True)]


def together(first: Renders, second: Renders) -> Renders:
    return Renders(
        *(a + b if isinstance(a, list) else np.concatenate([a, b]) for a, b in zip(first, second, strict=True))
    )


def mirrored(attributes: dict[str, str]) -> dict[str, str]:
    """What a mirror shows: "left" and "right" change places."""
    other = {"left": "right", "right": "left"}
    return {
        name: value if name in lexicon.PERSON else "-".join(other.get(part, part) for part in value.split("-"))
        for name, value in attributes.items()
    }


def looks() -> str:
    """Names the renderer's sources: renders of an older look are never mixed with new ones."""
    sources = [*sorted(Path(iy.studio.__file__).parent.glob("*.py")), Path(lexicon.__file__)]
    return sha256(b"".join(path.read_bytes() for path in sources))[:12]
