"""The renders that the foundation learns from: people who appear nowhere else, with exact captions.

People are numbered by their seed; the foundation owns seeds below `FIRST_RESERVED`, the studio's photo source starts there.
"""
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

import iy.studio
from iy import lexicon
from iy.storage import atomic_path, sha256
from iy.studio.people import sample_person
from iy.studio.render import render_many
from iy.studio.shots import sample_shot

FIRST_RESERVED = 1_000_000
CHUNK = 200      # people per file


class Renders(NamedTuple):
    """images uint8 (N, H, W, 3); person int (N,); attributes one dict of lexicon values per image."""
    images: np.ndarray
    person: np.ndarray
    attributes: list[dict[str, str]]


def jobs(first: int, people: int, shots: int) -> list[tuple]:
    return [(sample_person(seed), sample_shot(seed * 1009 + k)) for seed in range(first, first + people) for k in range(shots)]


def render(folder: Path, first: int, people: int, shots: int, size: int, workers: int) -> Renders:
    """Renders of `people` persons from seed `first`, `shots` each; chunks already on disk are read, not made again."""
    assert first + people <= FIRST_RESERVED
    folder = folder / looks()
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(first, first + people, CHUNK)
    for start in tqdm(starts, "rendering", unit=f"x{CHUNK} people"):
        path = folder / f"{start:06d}-{shots}-{size}.npz"
        if not path.exists():
            count = min(CHUNK, first + people - start)
            with atomic_path(path) as aside, open(aside, "wb") as file:
                np.savez(file, images=np.stack(list(render_many(jobs(start, count, shots), size, workers))))
    images = np.concatenate([np.load(folder / f"{start:06d}-{shots}-{size}.npz")["images"] for start in starts])
    done = jobs(first, people, shots)
    return Renders(images, np.repeat(np.arange(first, first + people), shots), [a.attributes() | b.attributes() for a, b in done])


def looks() -> str:
    """Names the renderer's sources: renders of an older look are never mixed with new ones."""
    sources = [*sorted(Path(iy.studio.__file__).parent.glob("*.py")), Path(lexicon.__file__)]
    return sha256(b"".join(path.read_bytes() for path in sources if path.name != "probes.py"))[:12]
