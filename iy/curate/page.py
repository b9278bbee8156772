"""The page that shows what was kept, what was not and why."""

import json
import re
from array import array
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from iy import records, report
from iy.params import Classifier, Params
from iy.records import REJECTED, SPLITS
from iy.storage import atomic_folder, read_image, write_bytes

PERSONS, PER_PERSON, REJECTS = 40, 10, 120  # shown at most; the page says how many there are
SHOWN_RATE = "0.01"  # of false matches, for subgroups
SIDE = 64
MEASURED = {
    "face_size": "face size, pixels",
    "sharpness": "sharpness",
    "clipped": "clipped share of the face",
    "yaw": "yaw, degrees (right > 0)",
    "pitch": "pitch, degrees (up > 0)",
    "quality": "quality",
}


class Seen(NamedTuple):
    """What the page shows of all photos.

    How many of each split, the persons of each, why how many were rejected, and each of `MEASURED` and each
    classifier's scores, of those that are used (True) and that are not (False). rejected: the first rows of those;
    persons: the first rows of the first persons.
    """

    splits: Counter
    names: dict[str, set[str]]
    reasons: Counter
    measured: dict[str, dict[bool, array]]
    scores: dict[str, dict[bool, array]]
    rejected: list[dict]
    persons: dict[str, list[dict]]


def write(settings: Params, calibration: dict, genuine: np.ndarray, impostor: np.ndarray) -> None:
    """The page of the table that the stage has written."""
    classifiers = settings.curate.classifiers
    folder, seen = (
        settings.report_dir("curate"),
        look(settings.data_dir("curate") / "photos.parquet", list(classifiers)),
    )
    sections = [
        ("Summary", [summary(seen)]),
        ("Why photos were rejected", reasons(seen)),
        ("Rejected photos", rejects(settings.photos_dir, seen)),
        ("Persons", persons(settings.photos_dir, seen)),
        ("Recogniser", recogniser(calibration, genuine, impostor)),
        ("Distributions", distributions(seen, classifiers)),
    ]
    used = seen.splits.total()
    lead = f"profile {settings.profile}: {used} of {used + seen.reasons.total()} photos are used"
    with atomic_folder(folder) as aside:  # as a whole: a killed stage leaves nothing in what DVC keeps
        write_bytes(aside / "index.html", report.page("Curated photos", sections, lead).encode())


def look(table: Path, classifiers: list[str]) -> Seen:
    """Read the table once, some rows at a time. classifiers: their names."""
    measured, scores = (
        {name: {True: array("f"), False: array("f")} for name in names} for names in (MEASURED, classifiers)
    )
    seen = Seen(Counter(), defaultdict(set), Counter(), measured, scores, [], {})
    for rows in records.batches(table, records.PHOTO, [name for name in records.PHOTO.names if name != "embedding"]):
        for row in rows:
            used = row["verdict"] != REJECTED
            for name in MEASURED:
                if row[name] is not None:
                    seen.measured[name][used].append(row[name])
            for name, probability in json.loads(row["scores"] or "{}").items():
                seen.scores[name][used].append(probability)
            if used:
                seen.splits[row["split"]] += 1
                seen.names[row["split"]].add(row["person"])
                if row["person"] in seen.persons or len(seen.persons) < PERSONS:
                    shown = seen.persons.setdefault(row["person"], [])
                    shown.append(row if len(shown) < PER_PERSON else {})
            else:
                seen.reasons[kind(row["reason"])] += 1
                if len(seen.rejected) < REJECTS:
                    seen.rejected.append(row)
    return seen


def summary(seen: Seen) -> report.Block:
    table = [[name, len(seen.names[name]), seen.splits[name]] for name in SPLITS]
    table.append(["rejected", "–", seen.reasons.total()])
    return report.table(["split", "persons", "photos"], table)


def reasons(seen: Seen) -> list[report.Block]:
    return [
        report.table(["reason", "photos"], seen.reasons.most_common())
        if seen.reasons
        else report.paragraph("None was.")
    ]


def kind(reason: str) -> str:
    """A reason without its numbers and names."""
    if reason.startswith("resembles "):
        return "resembles somebody else more"
    return re.sub(r"\d[\d.,]*", "…", reason.partition(":")[0].partition(" of ")[0].partition(" as ")[0])


def rejects(folder: Path, seen: Seen) -> list[report.Block]:
    if not seen.rejected:
        return [report.paragraph("None was.")]
    said = [report.paragraph(f"{len(seen.rejected)} of {seen.reasons.total()} are shown.")]
    cells = [[picture(folder, row), row["uri"], row["reason"]] for row in seen.rejected]
    return [*said, report.table(["photo", "from", "reason"], cells)]


def persons(folder: Path, seen: Seen) -> list[report.Block]:
    cells = [
        [f"{name} ({own[0]['split']}, {len(own)})", *(picture(folder, row) for row in own[:PER_PERSON])]
        for name, own in seen.persons.items()
    ]
    count = sum(len(names) for names in seen.names.values())
    return [
        report.paragraph(f"{len(cells)} of {count} persons, up to {PER_PERSON} photos each."),
        report.strip([], cells),
    ]


def picture(folder: Path, row: dict) -> report.Block:
    if row["shard"] is None:
        return report.thumbnail(None)
    turn = "" if row["yaw"] is None else f" yaw {row['yaw']:.0f} pitch {row['pitch']:.0f} quality {row['quality']:.2f}"
    return report.thumbnail(read_image(folder, row), f"{row['uri']}:{turn} {row['caption'] or ''}", SIDE)


def recogniser(calibration: dict, genuine: np.ndarray, impostor: np.ndarray) -> list[report.Block]:
    def draw(axes) -> None:
        bins = np.linspace(min(impostor.min(), genuine.min()), 1, 60)
        axes.hist(impostor, bins, density=True, alpha=0.6, label="different persons")
        axes.hist(genuine, bins, density=True, alpha=0.6, label="same person")
        axes.set_xlabel("cosine similarity")
        axes.set_yticks([])
        axes.legend(frameon=False)

    cells = [
        [
            f"{float(rate):.1%}",
            f"{found['threshold']:.3f}",
            f"{found['true_match']:.1%}",
            f"{found['low']:.2%} to {found['high']:.2%}",
        ]
        for rate, found in calibration["false_match"].items()
    ]
    return [
        report.paragraph(
            f"{calibration['recogniser']}, {calibration['persons']} persons, persons named by: "
            f"{calibration['labels']}. AUC {calibration['auc']:.4f}; median distance "
            f"{calibration['distance']['genuine_median']:.3f} same person, "
            f"{calibration['distance']['impostor_median']:.3f} different."
        ),
        report.table(
            [
                "false-match rate",
                "similarity needed",
                "same person found",
                "false-match rate to expect of other people (95 %)",
            ],
            cells,
        ),
        report.picture(report.plot(draw)),
        *groups(calibration),
    ]


def groups(calibration: dict) -> list[report.Block]:
    """Everybody's threshold for `SHOWN_RATE` within each subgroup, and the subgroup's own."""
    rows = [
        (f"{name}: {value}", found["false_match"][SHOWN_RATE])
        for name, values in calibration["subgroups"].items()
        for value, found in values.items()
    ]
    if not rows:
        return []
    everybody = calibration["false_match"][SHOWN_RATE]

    def draw(axes) -> None:
        place = np.arange(len(rows))
        axes.barh(place, [found["false_match"] for _, found in rows])
        axes.axvline(float(SHOWN_RATE), color="black", linewidth=0.8)
        axes.set_yticks(place, [name for name, _ in rows])
        axes.invert_yaxis()
        axes.set_xlabel("two persons of the subgroup taken for one")

    cells = [
        [name, f"{found['false_match']:.2%}", f"{found['true_match']:.1%}", f"{found['own_threshold']:.3f}"]
        for name, found in rows
    ]
    return [
        report.paragraph(
            "Within a subgroup, two persons' photos are taken for one person's this often at a similarity of "
            f"{everybody['threshold']:.3f}, with which it happens in {float(SHOWN_RATE):.1%} of all pairs (the line). "
            f"Last column: the similarity with which it would be {float(SHOWN_RATE):.1%} in the subgroup too."
        ),
        report.table(["subgroup", "false matches", "same person found", "similarity needed"], cells),
        report.picture(report.plot(draw, 6, 0.8 + 0.25 * len(rows))),
    ]


def distributions(seen: Seen, classifiers: dict[str, Classifier]) -> list[report.Block]:
    shown = [(seen.measured[name], title, None) for name, title in MEASURED.items()]
    shown += [
        (seen.scores[name], f"{name}, probability; the line: maximum", one.maximum) for name, one in classifiers.items()
    ]
    return [report.picture(histogram(*one)) for one in shown]


def histogram(values: dict[bool, array], title: str, limit: float | None) -> bytes:
    """PNG of how many photos are used (True) and rejected (False) by value; a line at `limit`."""

    def draw(axes) -> None:
        axes.hist([values[True], values[False]], 40, stacked=True, label=["used", "rejected"])
        if limit is not None:
            axes.axvline(limit, color="black", linewidth=0.8)
        axes.set_xlabel(title)
        axes.set_ylabel("photos")
        axes.legend(frameon=False)

    return report.plot(draw, 6, 2.4)
