"""Which of a pair's images is kept, and whether the pair is accepted. Rejected pairs keep their row and the reason."""

from collections.abc import Sequence
from typing import NamedTuple

from iy.records import ACCEPTED, REJECTED
from iy.synpairs.calibrate import Bounds


class Verdict(NamedTuple):
    verdict: str
    reason: str
    kept_pass: int | None  # index into the similarities, None when no image shows a face


def judge(similarity: Sequence[float | None], bounds: Bounds) -> Verdict:
    """similarity: to the reference, before refinement and after each pass; None where no face was found.

    The most similar image that is not above the upper bound is kept: a copy is worse than a slightly less similar
    image.
    """
    seen = {index: value for index, value in enumerate(similarity) if value is not None}
    if not seen:
        return Verdict(REJECTED, "no face found", None)
    allowed = {index: value for index, value in seen.items() if value <= bounds.upper}
    if not allowed:
        kept = min(seen, key=lambda index: seen[index])
        return Verdict(REJECTED, f"above upper bound {bounds.upper:.3f}: nearly a copy of the reference", kept)
    kept = max(allowed, key=lambda index: allowed[index])
    if allowed[kept] < bounds.lower:
        return Verdict(REJECTED, f"below lower bound {bounds.lower:.3f}", kept)
    return Verdict(ACCEPTED, "", kept)


def keep_best(rows: list[dict], share: float) -> int:
    """Accept the best rows below the bound until `share` of all rows is accepted (choice); their reason says so.

    Changes `rows` in place and returns how many were taken in. Without a face, or as a copy, none is.
    """
    missing = int(share * len(rows)) - sum(row["verdict"] == ACCEPTED for row in rows)
    below = [row for row in rows if row["verdict"] == REJECTED and row["reason"].startswith("below lower bound")]
    below.sort(key=lambda row: (-row["similarity"][row["kept_pass"]], row["id"]))
    taken = below[: max(missing, 0)]
    for row in taken:
        row["verdict"], row["reason"] = ACCEPTED, f"kept as best available, below bound {row['lower']:.3f}"
    return len(taken)
