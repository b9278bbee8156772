"""Which of a pair's images is kept, and whether the pair is accepted. Rejected pairs keep their row and the reason."""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from iy.records import ACCEPTED, REJECTED
from iy.synpairs.bounds import Bounds


class Kind(StrEnum):
    """Why a pair is accepted or not, as people read it in summaries."""

    WITHIN = "within bounds"
    BELOW = "below lower bound"
    ABOVE = "above upper bound"
    NO_FACE = "no face found"
    NOT_REWRITTEN = "caption not rewritten"


class Choice(NamedTuple):
    kind: Kind
    kept_pass: int | None  # index into the similarities, None when no image shows a face
    reason: str  # empty where it is accepted

    @property
    def verdict(self) -> str:
        return ACCEPTED if self.kind is Kind.WITHIN else REJECTED


def choose(similarity: Sequence[float | None], bounds: Bounds) -> Choice:
    """similarity: to the reference, before refinement and after each pass; None where no face was found.

    The most similar image that is not above the upper bound is kept: a copy is worse than a slightly less similar
    image.
    """
    seen = {index: value for index, value in enumerate(similarity) if value is not None}
    if not seen:
        return Choice(Kind.NO_FACE, None, Kind.NO_FACE)
    allowed = {index: value for index, value in seen.items() if value <= bounds.upper}
    if not allowed:
        kept = min(seen, key=lambda index: seen[index])
        return Choice(Kind.ABOVE, kept, f"{Kind.ABOVE} {bounds.upper:.3f}: nearly a copy of the reference")
    kept = max(allowed, key=lambda index: allowed[index])
    if allowed[kept] < bounds.lower:
        return Choice(Kind.BELOW, kept, f"{Kind.BELOW} {bounds.lower:.3f}")
    return Choice(Kind.WITHIN, kept, "")


def kind_of(row: dict) -> Kind:
    """Of a PAIR row, from its measures: what its `reason` says in words, and what it was before `keep_best`."""
    if not row["similarity"]:
        return Kind.NOT_REWRITTEN
    return choose(row["similarity"], Bounds(row["lower"], row["upper"])).kind


def keep_best(rows: list[dict], share: float) -> int:
    """Accept the best rows below the bound until `share` of all rows is accepted (choice); their reason says so.

    Changes `rows` in place and returns how many were taken in. Without a face, or as a copy, none is.
    """
    missing = int(share * len(rows)) - sum(row["verdict"] == ACCEPTED for row in rows)
    below = [row for row in rows if row["verdict"] == REJECTED and kind_of(row) is Kind.BELOW]
    below.sort(key=lambda row: (-row["similarity"][row["kept_pass"]], row["id"]))
    taken = below[: max(missing, 0)]
    for row in taken:
        row["verdict"], row["reason"] = ACCEPTED, f"kept as best available, below bound {row['lower']:.3f}"
    return len(taken)
