"""What there is to judge: the train people's photos, and the pairs made for them, each beside a photo of the person."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from iy import records
from iy.params import Params
from iy.storage import png, read_image

KINDS = ("pairs", "photos")
PHOTO_COLUMNS = ["id", "person", "split", "caption", "quality", "verdict", "reason", "shard", "offset", "length"]


@dataclass(frozen=True, slots=True)
class Thing:
    """A row to be judged and, beside it, a photo of the same person (none where there is no other)."""

    kind: str
    row: dict
    beside: dict | None

    def shown(self) -> dict[str, Any]:
        """What the page is told."""
        row = self.row
        similarity = (
            row["similarity"][row["kept_pass"]] if self.kind == "pairs" and row["kept_pass"] is not None else None
        )
        return {
            "id": row["id"],
            "kind": self.kind,
            "person": row["person"],
            "caption": row["caption"] or "",
            "verdict": row["verdict"],
            "reason": row["reason"] or "",
            "similarity": similarity,
            "quality": row.get("quality"),
            "beside": self.beside is not None,
        }


class Things:
    """All of a profile's, by id, the best first; beside a photo stands the person's best other one."""

    def __init__(self, settings: Params):
        self.settings = settings
        photos = records.read(settings.data_dir("curate") / "photos.parquet", records.PHOTO, PHOTO_COLUMNS)
        pairs = records.read(settings.data_dir("synpairs") / "pairs.parquet", records.PAIR)
        readable = [row for row in photos if row["split"] == "train" and row["shard"] is not None]
        by_id = {row["id"]: row for row in readable}
        made = [row for row in pairs if row["reference"] in by_id and row["shard"] is not None]
        people: dict[str, list[dict]] = {}
        for row in sorted(readable, key=worth):
            people.setdefault(row["person"], []).append(row)
        found = [Thing("pairs", row, by_id[row["reference"]]) for row in sorted(made, key=worth)]
        found += [
            Thing("photos", row, next((one for one in people[row["person"]] if one is not row), None))
            for row in sorted(readable, key=worth)
        ]
        self.by_id = {thing.row["id"]: thing for thing in found}

    def pick(self, kind: str, verdict: str | None) -> list[Thing]:
        """Those of a kind, or of those the machine accepted or rejected."""
        return [
            thing for thing in self.by_id.values() if thing.kind == kind and verdict in (None, thing.row["verdict"])
        ]

    def image(self, thing: Thing, beside: bool) -> bytes:
        """PNG of the thing, or of what stands beside it where something does."""
        row = thing.beside if beside else thing.row
        if row is None:
            raise ValueError(f"nothing stands beside {thing.row['id']}")
        folder = self.settings.photos_dir if beside or thing.kind == "photos" else self.settings.data_dir("synpairs")
        return png(np.asarray(read_image(folder, row)))


def worth(row: dict) -> tuple:
    """Sorts the best first: what is judged first counts most."""
    measured = row["similarity"][row["kept_pass"]] if row.get("kept_pass") is not None else row.get("quality")
    return row["verdict"] != records.ACCEPTED, -(measured or 0.0), row["id"]
