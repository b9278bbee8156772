"""From record rows to training examples: which photos and pairs a stage uses, and their encoding, once.

Real examples (stages 1 and 3): the paper conditions on the face crop of the very photo to be drawn. `reference_other`
conditions a share of them on another photo of the same person instead (our choice): copying then does not pay.
Pairs (stages 2 and 4): a real photo is the reference, the synthetic picture of the same person the target.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from rich.progress import track

from iy import params, records, storage
from iy.diffusion import Base, encode_images, encode_text, to_pixels
from iy.errors import UserError
from iy.faces.crop import reference_crop
from iy.finetune.examples import Examples, Texts
from iy.model.vision import resize
from iy.params import Params

ENCODE = 16  # images or captions encoded at once
ACCEPTED = pc.field("verdict") == records.ACCEPTED
PAIR_COLUMNS = ["reference", "caption", "shard", "offset", "length", "verdict"]  # read, and the rest left on disk
PHOTO_COLUMNS = ["id", "person", "split", "caption", "box", "landmarks", "shard", "offset", "length", "verdict"]


@dataclass(kw_only=True, slots=True)
class Source:
    """One example before encoding. `target` reads uint8 (H, W, 3); `box` is the face on it in pixels, or None."""

    target: Callable[[], np.ndarray]
    caption: str
    reference: str  # photo id
    box: list[float] | None


def photo_table(settings: Params) -> Path:
    return settings.data_dir("curate") / "photos.parquet"


def tables(settings: Params, stage: params.Finetuning) -> dict[str, Path]:
    """The record tables that a stage reads, by name: all photos (references, validation) and its own rows."""
    own = {
        ("real", "all"): {},
        ("pairs", "all"): {"pairs": settings.data_dir("synpairs") / "pairs.parquet"},
        ("real", "selected"): {"selected photos": settings.data_dir("select") / "real.parquet"},
        ("pairs", "selected"): {"selected pairs": settings.data_dir("select") / "pairs.parquet"},
    }
    return {"photos": photo_table(settings), **own[stage.data, stage.set]}


def load_examples(
    settings: Params, stage: params.Finetuning, base: Base, size: int
) -> tuple[Examples, Examples | None]:
    """Examples of the stage, and of the validation people's real photos (None without any), encoded by `base`.

    size: the vision tower's image size. Validation is on real photos in every stage, so that stages compare.
    """
    photos = {row["id"]: row for row in records.read(photo_table(settings), records.PHOTO, PHOTO_COLUMNS, ACCEPTED)}
    path = list(tables(settings, stage).values())[-1]
    if stage.data == "real":
        rows = records.read(path, records.PHOTO, PHOTO_COLUMNS, records.usable("train"))
        sources = [real_source(settings, row) for row in rows]
    else:
        rows = records.read(path, records.PAIR, PAIR_COLUMNS, ACCEPTED)
        train = {key for key, row in photos.items() if row["split"] == "train"}
        sources = [pair_source(settings, row) for row in rows if row["reference"] in train]
    if not sources:
        raise UserError(
            f"{path} holds nothing to train on{why_not(path)}: add photos, or relax the settings of the "
            "stage that wrote it"
        )
    held = [real_source(settings, row) for row in photos.values() if row["split"] == "validation"]
    return (
        encode(settings, sources, photos, base, size, f"encoding {len(sources)} examples"),
        encode(settings, held, photos, base, size, "encoding validation") if held else None,
    )


def why_not(path: Path) -> str:
    """The most frequent reason for which rows of a table were rejected."""
    table = pq.read_table(path, columns=["reason"], filters=pc.field("verdict") == records.REJECTED)
    reasons = Counter(table["reason"].to_pylist())
    return f" (rejected: {sum(reasons.values())}, most often for {reasons.most_common(1)[0][0]!r})" if reasons else ""


def real_source(settings: Params, row: dict) -> Source:
    return Source(
        target=lambda: storage.read_image(settings.photos_dir, row),
        caption=row["caption"] or "",
        reference=row["id"],
        box=row["box"],
    )


def pair_source(settings: Params, row: dict) -> Source:
    return Source(
        target=lambda: storage.read_image(settings.data_dir("synpairs"), row),
        caption=row["caption"] or "",
        reference=row["reference"],
        box=None,
    )


def encode(
    settings: Params, sources: list[Source], photos: dict[str, dict], base: Base, size: int, title: str
) -> Examples:
    """Targets to latents, captions to text states, references (and other photos of their people) to face crops."""
    people = {photos[source.reference]["person"] for source in sources}
    shown = [row for row in photos.values() if row["person"] in people]
    crops = torch.stack([reference_pixels(settings, row, size) for row in shown])
    place = {row["id"]: i for i, row in enumerate(shown)}
    references = np.array([place[source.reference] for source in sources])
    captions = sorted({source.caption for source in sources} | {""}, key=lambda text: (len(text), text))
    row = {caption: i for i, caption in enumerate(captions)}
    latents, boxes = encode_targets(sources, base, title)
    return Examples(
        latents,
        encode_captions(captions, base),
        np.array([row[source.caption] for source in sources]),
        row[""],
        crops,
        references,
        other_photos(sources, references, shown),
        boxes,
    )


def other_photos(sources: list[Source], references: np.ndarray, shown: list[dict]) -> list[np.ndarray]:
    """Per example the rows of `shown` with the same person elsewhere; none for pairs: their reference is no copy."""
    same: dict[str, list[int]] = {}
    for i, row in enumerate(shown):
        same.setdefault(row["person"], []).append(i)
    return [
        np.array([i for i in same[shown[reference]["person"]] if i != reference and source.box is not None], int)
        for source, reference in zip(sources, references, strict=True)
    ]


def reference_pixels(settings: Params, row: dict, size: int) -> torch.Tensor:
    """The face of a photo as uint8 (3, size, size), made exactly as a reference is when drawing."""
    crop = reference_crop(settings, settings.photos_dir, row)
    return ((resize(to_pixels([crop]), size)[0] + 1) * 127.5).round().to(torch.uint8)


def encode_targets(sources: list[Source], base: Base, title: str) -> tuple[torch.Tensor, np.ndarray]:
    """Latents (N, C, h, w), the posterior's mode, and face boxes (N, 4) in latent cells, NaN where unknown."""
    latents, boxes = [], []
    for first in track(range(0, len(sources), ENCODE), title):
        part = sources[first : first + ENCODE]
        squares = [square(source.target(), source.box, base.image_size) for source in part]
        latents.append(encode_images(base, to_pixels([image for image, _ in squares])).float().cpu())
        boxes += [box / base.image_size * latents[-1].shape[-1] for _, box in squares]
    return torch.cat(latents), np.array(boxes, np.float32)


def square(image: np.ndarray, box: list[float] | None, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest square of a photo, its face as near the middle as it goes, resized; and the box on it, in pixels."""
    import cv2

    height, width = image.shape[:2]
    side = min(height, width)
    face = np.full(4, np.nan) if box is None else np.array(box, np.float64)
    centre = np.array([width, height]) / 2 if box is None else (face[:2] + face[2:]) / 2
    left, top = np.clip(np.round(centre - side / 2), 0, [width - side, height - side]).astype(int)
    cut = image[top : top + side, left : left + side]
    if side != size:
        cut = cv2.resize(cut, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_CUBIC)
    return cut, (face - [left, top, left, top]) * size / side


def encode_captions(captions: list[str], base: Base) -> Texts:
    """States of every caption without padding, on the CPU; captions of like length together pad least."""
    rows: dict[str, list[torch.Tensor]] = {}
    for first in range(0, len(captions), ENCODE):
        for name, (hidden, mask) in encode_text(base, captions[first : first + ENCODE]).items():
            kept = [states[: int(real.sum())].cpu().clone() for states, real in zip(hidden, mask, strict=True)]
            rows.setdefault(name, []).extend(kept)
    return Texts(rows)
