"""The renders that the foundation learns from: people who appear nowhere else, with exact captions.

People are numbered by their seed; the foundation owns those below `FIRST_RESERVED`, the photo source starts there.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

import iy.studio
from iy import lexicon, params
from iy.evaluate.probes import mirror
from iy.faces import Analyser, load_analyser
from iy.faces.crop import GREY, face_crop
from iy.storage import atomic_path, sha256
from iy.studio.people import sample_person
from iy.studio.render import render_many
from iy.studio.shots import sample_shot
from iy.workers import each

FIRST_RESERVED = 1_000_000
CHUNK = 200  # people per file
SHARED = 2  # people in a row are photographed alike: for every picture there is one that differs in the person alone
PHOTO, SIDE = 128, 64  # pixels: as the studio photographs, and as the foundation draws


class Renders(NamedTuple):
    """Photos of the studio and what is known of them.

    photos uint8 (N, 128, 128, 3); images uint8 (N, 64, 64, 3), the photos reduced; person int (N,); attributes one dict
    of lexicon values per photo. `shots` photos in a row show the same person; number k of a person and number k of
    their neighbour in the same `SHARED` people show the same pose, expression, clothes, place and light.
    """

    photos: np.ndarray
    images: np.ndarray
    person: np.ndarray
    attributes: list[dict[str, str]]

    @property
    def shots(self) -> int:
        return int((self.person == self.person[0]).sum())

    @property
    def twins(self) -> np.ndarray:
        """Per photo the row of the next person of its `SHARED` (N,), photographed alike; itself for a last odd one."""
        who, shot = np.divmod(np.arange(len(self.person)), self.shots)
        first = who - who % SHARED
        others = np.minimum(SHARED, len(self.person) // self.shots - first)
        return (first + (who - first + 1) % others) * self.shots + shot


class Faces(NamedTuple):
    """What the face models see in the renders.

    crops uint8 (N, 64, 64, 3): masked references, grey where no face is found; box float32 (N, 4) in pixels of the 64
    px images, NaN without a face; landmarks float32 (N, 5, 2), likewise; embedding float32 (N, 128): the filtering
    recogniser's, zeros without a face.
    """

    crops: np.ndarray
    box: np.ndarray
    landmarks: np.ndarray
    embedding: np.ndarray


def mirrored(made: Renders, found: Faces) -> tuple[Renders, Faces]:
    """The renders and faces as a mirror shows them: "left" and "right" change places; crops and vectors stay."""
    flip = {
        name: dict(zip(values, [list(values)[i] for i in mirror(name)], strict=True))
        for name, values in lexicon.LEXICON.items()
    }
    box = found.box.copy()
    box[:, [0, 2]] = SIDE - found.box[:, [2, 0]]
    landmarks = found.landmarks[:, [1, 0, 2, 4, 3]]  # eyes and corners of the mouth change places
    landmarks[..., 0] = SIDE - 1 - landmarks[..., 0]
    return (
        Renders(
            made.photos[:, :, ::-1],
            np.ascontiguousarray(made.images[:, :, ::-1]),
            made.person,
            [{name: flip[name].get(value, value) for name, value in row.items()} for row in made.attributes],
        ),
        found._replace(box=box, landmarks=landmarks),
    )


def jobs(first: int, people: int, shots: int) -> list[tuple]:
    return [
        (sample_person(seed), sample_shot((seed - seed % SHARED) * 1009 + k))
        for seed in range(first, first + people)
        for k in range(shots)
    ]


def render(folder: Path, first: int, people: int, shots: int, workers: params.Workers) -> Renders:
    """Renders of `people` persons from seed `first`, `shots` each; chunks already on disk are read, not made again."""
    assert first + people <= FIRST_RESERVED
    folder = folder / looks()
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(first, first + people, CHUNK)
    paths = [folder / f"{start:06d}-{shots}-{PHOTO}-{SHARED}.npz" for start in starts]
    for start, path in zip(tqdm(starts, "rendering", unit=f"x{CHUNK} people"), paths, strict=True):
        if not path.exists():
            count = min(CHUNK, first + people - start)
            with atomic_path(path) as aside, open(aside, "wb") as file:
                np.savez(file, images=np.stack(list(render_many(jobs(start, count, shots), PHOTO, workers))))
    photos = np.concatenate([np.load(path)["images"] for path in paths])
    attributes = [a.attributes() | b.attributes() for a, b in jobs(first, people, shots)]
    return Renders(photos, reduced(photos), np.repeat(np.arange(first, first + people), shots), attributes)


def reduced(photos: np.ndarray) -> np.ndarray:
    """Halved by area, as a 128 px photo is before training at 64 px."""
    import cv2

    return np.stack([cv2.resize(photo, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for photo in photos])


def faces(photos: np.ndarray, folder: Path, workers: params.Workers, name: str = "faces") -> Faces:
    """Every photo's face, found, cropped and embedded as the stages do it; kept in `folder`."""
    path = folder / f"{name}-{analyser().recogniser.version}-landmarks.npz"
    if not path.exists():
        rows = list(tqdm(each(face, photos, workers, chunk=50), "faces", len(photos)))
        box, landmarks, embedding = (np.stack(values) for values in zip(*rows, strict=True))
        with atomic_path(path) as aside, open(aside, "wb") as file:
            np.savez(file, box=box, landmarks=landmarks, embedding=embedding)
    with np.load(path) as stored:
        box, landmarks, embedding = (stored[name] for name in Faces._fields[1:])
    model = params.load("studio").model
    rows = zip(photos, box, landmarks, strict=True)
    return Faces(np.stack([crop(*row, model) for row in rows]), box, landmarks, embedding)


@cache
def analyser() -> Analyser:
    settings = params.load("studio")
    return load_analyser(settings.faces, settings.usage, settings.device)


def face(photo: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Box, landmarks and embedding of one row of them."""
    found = analyser().detect(photo)
    if not found:
        nowhere = np.full((7, 2), np.nan, np.float32)
        return nowhere[:2].ravel(), nowhere[2:], np.zeros(128, np.float32)
    first, scale = found[0], SIDE / len(photo)
    return (
        np.float32(first.box * scale),
        np.float32((first.landmarks + 0.5) * scale - 0.5),  # a pixel's place is its middle's
        np.float32(analyser().embed(photo, first)),
    )


def crop(photo: np.ndarray, box: np.ndarray, landmarks: np.ndarray, model: params.Model) -> np.ndarray:
    """The reference (64, 64, 3) that a photo is, as the stages cut it."""
    if not np.isfinite(box[0]):
        return np.full((SIDE, SIDE, 3), GREY, np.uint8)
    scale = len(photo) / SIDE
    return face_crop(photo, box * scale, (landmarks + 0.5) * scale - 0.5, SIDE, model.crop_margin, model.mask_face)


def looks() -> str:
    """Names the renderer's sources: renders of an older look are never mixed with new ones."""
    sources = [*sorted(Path(iy.studio.__file__).parent.glob("*.py")), Path(lexicon.__file__)]
    return sha256(b"".join(path.read_bytes() for path in sources))[:12]
