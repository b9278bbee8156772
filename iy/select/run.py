"""The stage: rank, let people's decisions override, write what is kept and why the rest is not.

data/<profile>/select/real.parquet and pairs.parquet hold every photo or pair of the train people; `verdict` says which
are kept. Photos have no `decided_by` column: their `reason` names the reviewer.
"""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.compute as pc

from iy import records, rights, storage
from iy.errors import UserError
from iy.params import Params
from iy.records import ACCEPTED, REJECTED
from iy.select import decisions
from iy.select.decisions import Decision
from iy.select.rank import best_pairs, best_photos
from iy.tracking import UNTRACKED, StageRun

DECIDING = [
    "id",
    "person",
    "split",
    "licence",
    "consent",
    "quality",
    "shard",
    "verdict",
    "reason",
]  # the rest passes on
log = logging.getLogger(__name__)


def run(settings: Params, tracked: StageRun = UNTRACKED) -> None:
    """Write data/<profile>/select."""
    photo_path = settings.data_dir("curate") / "photos.parquet"
    pair_path = settings.data_dir("synpairs") / "pairs.parquet"
    tracked.log_dataset("photos", photo_path)
    tracked.log_dataset("pairs", pair_path)
    photos, pairs = records.read(photo_path, records.PHOTO, DECIDING), records.read(pair_path, records.PAIR)
    decided = {} if settings.select.decisions is None else decisions.read(Path(settings.select.decisions))
    decided = still_here(decided, {row["id"] for row in photos + pairs})
    known = {row["id"]: row["split"] for row in photos if row["split"]}
    splits = {row["id"]: None for row in photos} | known  # a copy has its original's id, and no split
    check(decided, splits, {row["id"]: splits.get(row["reference"]) for row in pairs}, photos + pairs)
    refuse_barred(decided, photos + pairs, settings.usage)
    real = [row for row in photos if row["split"] == "train"]
    made = [row for row in pairs if splits.get(row["reference"]) == "train"]
    if settings.select.review == "required":
        settings.select.decided()
        refuse_undecided(real + made, decided)
    real = judge(real, decided, settings.select.real_share, best_photos)
    made = judge(made, decided, settings.select.pair_share, best_pairs)
    with storage.atomic_folder(settings.data_dir("select")) as folder:
        records.stream(folder / "real.parquet", judged_photos(photo_path, real), records.PHOTO)
        records.write(folder / "pairs.parquet", made, records.PAIR)
        settings.write(folder)
    for name, rows in (("real", real), ("pairs", made)):
        kept = len(records.accepted(rows))
        tracked.log_metrics({f"{name}_kept": kept, f"{name}_left_out": len(rows) - kept})


def judged_photos(table: Path, real: list[dict]) -> Iterator[list[dict]]:
    """The train people's whole rows, some at a time, with what `real` says of each."""
    said = {row["id"]: row for row in real}
    for rows in records.batches(table, records.PHOTO, where=pc.field("split") == "train"):
        yield [photo_row(row | said[row["id"]]) for row in rows]


def still_here(decided: dict[str, Decision], ids: set[str]) -> dict[str, Decision]:
    """What was decided of rows that exist.

    Pairs come and go with the settings that draw them; a file of which nothing is here belongs to something else.
    """
    gone = [key for key in decided if key not in ids]
    if gone and len(gone) == len(decided):
        raise UserError(
            f"{decided[gone[0]].place}: {gone[0]} is neither a photo nor a pair of this profile, nor is any other "
            "of that file: name the file of this profile in select.decisions"
        )
    if gone:
        log.warning(
            "%d of %d decisions are of photos or pairs that are not here any more and are passed over, the first in %s",
            len(gone),
            len(decided),
            decided[gone[0]].place,
        )
    return {key: decision for key, decision in decided.items() if key in ids}


def check(
    decided: dict[str, Decision], photos: dict[str, str | None], pairs: dict[str, str | None], rows: list[dict]
) -> None:
    """Refuse decisions about rows that must not be trained on."""
    readable = {row["id"] for row in rows if row["shard"] is not None}
    for key, decision in decided.items():
        split = photos.get(key, pairs.get(key))
        if decision.verdict == ACCEPTED and split in ("validation", "test"):
            raise UserError(
                f"{decision.place}: {key} belongs to the {split} people, who are never trained on: remove the row"
            )
        if decision.verdict == ACCEPTED and key not in readable:
            raise UserError(f"{decision.place}: {key} has no image that can be read: remove the row")


def refuse_barred(decided: dict[str, Decision], rows: list[dict], usage: str) -> None:
    """Nobody can accept what the licence or consent forbids."""
    for row in rows:
        decision = decided.get(row["id"])
        if (
            decision
            and decision.verdict == ACCEPTED
            and row["verdict"] == REJECTED
            and (why := rights.barred(row, usage))
        ):
            raise UserError(f"{decision.place}: {row['id']} must not be accepted: {why}: remove the row")


def refuse_undecided(rows: list[dict], decided: dict[str, Decision]) -> None:
    """People are to decide, and have not yet."""
    chosen = records.accepted(rows)
    left = sum(row["id"] not in decided for row in chosen)
    if left:
        raise UserError(
            f"select.review: required: {left} of {len(chosen)} photos and pairs are not decided: judge them "
            "with `iy review`, then `iy review export`"
        )


def judge(rows: list[dict], decided: dict[str, Decision], share: float, best: Callable) -> list[dict]:
    """The rows with verdict, reason and decided_by: people's decisions, else the ranking of what was accepted."""
    verdicts = {row["id"]: decided[row["id"]].verdict if row["id"] in decided else row["verdict"] for row in rows}
    ranked = [row for row in rows if verdicts[row["id"]] == ACCEPTED]
    forced = {row["id"] for row in ranked if row["id"] in decided}
    kept = best(ranked, share, forced)
    return [one_verdict(row, decided.get(row["id"]), verdicts[row["id"]], row["id"] in kept, share) for row in rows]


def one_verdict(row: dict, decision: Decision | None, verdict: str, kept: bool, share: float) -> dict:
    if decision is not None:
        return row | {"verdict": decision.verdict, "reason": decision.reason, "decided_by": decision.reviewer}
    if verdict == REJECTED:
        return row | {"decided_by": "automatic"}  # by an earlier stage, with its reason
    reason = f"{'among' if kept else 'not among'} the best {share:.0%}"
    return row | {"verdict": ACCEPTED if kept else REJECTED, "reason": reason, "decided_by": "automatic"}


def photo_row(row: dict) -> dict:
    """A photo's table has no column for who decided: the reason says it."""
    who = row["decided_by"]
    reason = row["reason"] if who == "automatic" else f"{row['verdict']} by {who}: {row['reason']}".rstrip(": ")
    return {key: value for key, value in row.items() if key != "decided_by"} | {"reason": reason}
