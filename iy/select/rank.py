"""Which rows to keep: pure ranking, the same for the same rows in any order."""

import math
from collections import defaultdict

PER_PERSON = 2  # photos a person should keep: one to look at, one to draw


def best_photos(rows: list[dict], share: float, forced: set[str]) -> set[str]:
    """Ids of the best `share` of photos by quality, `forced` ones first, at least two of a person where that fits.

    Persons whose second photo is good come first when there is not room for two of everybody.
    """
    budget = max(math.ceil(share * len(rows)), len(forced))
    people = grouped(rows, lambda row: (row["id"] not in forced, -number(row["quality"]), row["id"]))
    kept = set(forced)
    seconds = sorted(people.values(), key=lambda own: (-number(own[:PER_PERSON][-1]["quality"]), own[0]["id"]))
    for own in sorted(seconds, key=lambda own: len(own) < PER_PERSON):
        missing = {row["id"] for row in own[:PER_PERSON]} - kept
        if len(kept) + len(missing) <= budget:
            kept |= missing
    for row in sorted(rows, key=lambda row: (-number(row["quality"]), row["id"])):
        if len(kept) < budget:
            kept.add(row["id"])
    return kept


def best_pairs(rows: list[dict], share: float, forced: set[str]) -> set[str]:
    """Ids of `share` of the pairs, `forced` ones first: everybody's most similar pair, then everybody's second, ..."""
    budget = max(math.ceil(share * len(rows)), len(forced))
    people = grouped(rows, lambda row: (row["id"] not in forced, -final_similarity(row), row["id"]))
    places = {row["id"]: place for own in people.values() for place, row in enumerate(own)}
    order = sorted(
        rows, key=lambda row: (row["id"] not in forced, places[row["id"]], -final_similarity(row), row["id"])
    )
    return {row["id"] for row in order[:budget]}


def grouped(rows: list[dict], order) -> dict[str, list[dict]]:
    """Each person's rows in `order`."""
    people = defaultdict(list)
    for row in sorted(rows, key=order):
        people[row["person"]].append(row)
    return people


def final_similarity(row: dict) -> float:
    """Of the version of a pair that was kept, to its reference."""
    if row["kept_pass"] is None or not row["similarity"]:
        return -1.0
    return number(row["similarity"][row["kept_pass"]])


def number(value: float | None) -> float:
    """Rows without a measurement (accepted by people only) rank last."""
    return -1.0 if value is None or math.isnan(value) else value
