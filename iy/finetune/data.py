"""From record rows to training examples: which photos and pairs a stage uses, and where they are encoded.

Real examples (stages 1 and 3): the paper conditions on the face crop of the very photo to be drawn. `reference_other`
conditions a share of them on another photo of the same person instead (our choice): copying then does not pay.
Pairs (stages 2 and 4): a real photo is the reference, the synthetic picture of the same person the target.

Tables are read some rows at a time, and of each row a few numbers stay: a million photos are no more than tens of
megabytes.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from iy import params, records
from iy.diffusion import Base
from iy.errors import UserError
from iy.finetune import store
from iy.finetune.encode import Encoder, Wanted
from iy.finetune.examples import Examples, Shapes
from iy.finetune.store import ROWS, Store
from iy.finetune.stored import Others, StoredTensors, StoredTexts
from iy.params import Params

ACCEPTED = pc.field("verdict") == records.ACCEPTED
PLACE = ["shard", "offset", "length"]
PAIR_COLUMNS = ["id", "reference", "caption", *PLACE, "verdict"]  # read, and the rest left on disk
PHOTO_COLUMNS = ["id", "person", "split", "caption", "box", "landmarks", *PLACE, "verdict"]


@dataclass(slots=True)
class Photos:
    """The accepted photos (M), in their table's order: keys of their ids, a number for each one's person, and whether
    they are of the train split."""

    table: Path
    ids: np.ndarray
    person: np.ndarray
    train: np.ndarray

    order: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.order = np.argsort(self.ids, kind="stable")

    def numbers(self, ids: np.ndarray) -> np.ndarray:
        """Which photos have these ids (keys), -1 where none has."""
        if not len(self.ids):
            return np.full(len(ids), -1)
        places = np.minimum(np.searchsorted(self.ids, ids, sorter=self.order), len(self.ids) - 1)
        found = self.order[places]
        return np.where(self.ids[found] == ids, found, -1)


@dataclass(slots=True)
class Source:
    """The rows of a table that a set of examples is made of; `folder` holds their images. `kept`: which of those that
    fulfil `where`, None for all."""

    table: Path
    schema: pa.Schema
    columns: list[str]
    where: pc.Expression
    folder: Path
    kept: np.ndarray | None = None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        several = records.batches(self.table, self.schema, self.columns, where=self.where)
        rows = chain.from_iterable(several)
        if self.kept is None:
            return rows
        return (row for row, kept in zip(rows, self.kept, strict=True) if kept)

    @property
    def photographed(self) -> bool:
        """Whether the targets are photos, which show a face in a known place."""
        return self.schema is records.PHOTO

    def captions(self) -> Iterator[str]:
        return (row["caption"] or "" for row in self)


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

    size: the vision tower's image size. Validation is on real photos in every stage, and on squares, so that stages
    compare.
    """
    photos, path = read_photos(photo_table(settings)), list(tables(settings, stage).values())[-1]
    if stage.data == "real":
        source = Source(path, records.PHOTO, PHOTO_COLUMNS, records.usable("train"), settings.photos_dir)
    else:
        source = Source(path, records.PAIR, PAIR_COLUMNS, ACCEPTED, settings.data_dir("synpairs"))
        shown = photos.numbers(store.keys(store.key(row["reference"]) for row in source))
        source.kept = (shown >= 0) & photos.train[shown] if len(photos.ids) else np.zeros(len(shown), bool)
    encoder = Encoder(settings, base, size)
    train = load(settings, encoder, photos, source, settings.finetune.buckets, "examples")
    if train is None:
        raise UserError(
            f"{path} holds nothing to train on{why_not(path)}: add photos, or relax the settings of the "
            "stage that wrote it"
        )
    validation = Source(
        photo_table(settings), records.PHOTO, PHOTO_COLUMNS, records.usable("validation"), settings.photos_dir
    )
    return train, load(settings, encoder, photos, validation, None, "validation")


def read_photos(table: Path) -> Photos:
    ids, person, train = [], [], []
    columns = ["id", "person", "split", "verdict"]
    for row in chain.from_iterable(records.batches(table, records.PHOTO, columns, where=ACCEPTED)):
        ids.append(store.key(row["id"]))
        person.append(int.from_bytes(store.key(row["person"])[:8], "big", signed=True))
        train.append(row["split"] == "train")
    return Photos(table, store.keys(ids), np.array(person, np.int64), np.array(train, bool))


def why_not(path: Path) -> str:
    """The most frequent reason for which rows of a table were rejected."""
    table = pq.read_table(path, columns=["reason"], filters=pc.field("verdict") == records.REJECTED)
    reasons = Counter(table["reason"].to_pylist())
    return f" (rejected: {sum(reasons.values())}, most often for {reasons.most_common(1)[0][0]!r})" if reasons else ""


def load(
    settings: Params, encoder: Encoder, photos: Photos, source: Source, buckets: params.Buckets | None, title: str
) -> Examples | None:
    """The examples of a source; None where it has no rows."""
    name = "id" if source.photographed else "reference"
    reference = photos.numbers(store.keys(store.key(row[name]) for row in source))
    if not len(reference):
        return None
    if (reference < 0).any():
        raise UserError(
            f"{source.table} has photos that {photos.table} has not accepted: run the stages that write them again"
        )
    targets, latents = encoder.encode(wanted_targets(settings, source, len(reference), buckets), f"{title}: pictures")
    texts, captions, empty = load_captions(settings, encoder, source, f"{title}: captions")
    crops, shown = load_crops(settings, encoder, photos, reference, f"{title}: references")
    sizes = targets.figures("sizes", latents)
    return Examples(
        StoredTensors(targets, "latents", latents, encoder.base.latent_shape),
        StoredTexts(texts),
        captions,
        empty,
        StoredTensors(crops, "crop", shown, (3, encoder.size, encoder.size)),
        reference,
        Others(photos.person, reference, source.photographed),
        targets.figures("box", latents),
        sizes,
        None if buckets is None else Shapes(sizes[:, 4] * 2**16 + sizes[:, 5], settings.finetune.training.batch),
    )


def wanted_targets(settings: Params, source: Source, count: int, buckets: params.Buckets | None) -> Wanted:
    """The pictures of a source, `count` in number."""
    alone = settings.finetune.encoding == "alone" or buckets is not None
    rest = count - count % ROWS
    shape = None if buckets is None else buckets.model_dump()
    where = {"folder": str(source.folder), "buckets": buckets is not None}

    def items() -> Iterator[dict[str, Any]]:
        for number, row in enumerate(source):
            together = 1 if alone else ROWS if number < rest else count - rest
            seen = {name: row[name] for name in PLACE} | {"box": row.get("box"), "together": together}
            yield where | seen | {"id": row["id"]}

    keys = (store.key(shape, one["id"], one["length"], one["box"], one["together"]) for one in items())
    return Wanted("latents", store.keys(keys), items)


def load_captions(settings: Params, encoder: Encoder, source: Source, title: str) -> tuple[Store, np.ndarray, int]:
    """The store of the captions, each row's number in it, and that of the empty one."""
    if settings.finetune.encoding == "alone":

        def items() -> Iterator[dict[str, Any]]:
            return ({"caption": one, "together": 1} for one in chain(source.captions(), [""]))

        keys = store.keys(store.key(one["caption"]) for one in items())
        found, numbers = encoder.encode(Wanted("texts", keys, items), title)
        return found, numbers[:-1], int(numbers[-1])
    captions = sorted({*source.captions(), ""}, key=lambda text: (len(text), text))  # of like length: padded least
    batches = [captions[start : start + ROWS] for start in range(0, len(captions), ROWS)]
    keys = store.keys(store.key(one, batch) for batch in batches for one in batch)
    wanted = Wanted("texts", keys, lambda: ({"caption": one, "together": ROWS} for one in captions))
    found, numbers = encoder.encode(wanted, title)
    place = dict(zip(captions, numbers.tolist(), strict=True))
    return found, np.array([place[one] for one in source.captions()]), place[""]


def load_crops(
    settings: Params, encoder: Encoder, photos: Photos, reference: np.ndarray, title: str
) -> tuple[Store, np.ndarray]:
    """The store of the faces of all photos of the people that are references, and each photo's number in it (M,), -1
    for other people's."""
    shown = np.isin(photos.person, np.unique(photos.person[reference]))
    source = Source(photos.table, records.PHOTO, PHOTO_COLUMNS, ACCEPTED, settings.photos_dir, shown)

    def items() -> Iterator[dict[str, Any]]:
        for row in source:
            seen = {name: row[name] for name in (*PLACE, "id", "box", "landmarks")}
            yield seen | {"folder": str(source.folder), "together": ROWS}

    keys = store.keys(store.key(one["id"], one["length"], one["box"], one["landmarks"]) for one in items())
    found, numbers = encoder.encode(Wanted("crops", keys, items), title)
    every = np.full(len(photos.ids), -1)
    every[shown] = numbers
    return found, every
