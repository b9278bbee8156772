"""The page that shows what was kept, what was not and why."""
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from iy import report
from iy.params import Params
from iy.records import REJECTED, SPLITS, accepted
from iy.storage import read_image, write_bytes

PERSONS, PER_PERSON, REJECTS = 40, 10, 120      # shown at most; the page says how many there are
COLUMNS = 12
SIDE = 64
MEASURED = {"face_size": "face size, pixels", "sharpness": "sharpness", "yaw": "yaw, degrees (right > 0)",
            "pitch": "pitch, degrees (up > 0)", "quality": "quality"}


def write(params: Params, rows: list[dict], calibration: dict, genuine: np.ndarray, impostor: np.ndarray) -> None:
    folder = params.report_dir("curate")
    sections = [("Summary", [summary(rows)]), ("Why photos were rejected", reasons(rows)),
                ("Rejected photos", rejects(params.photos_dir, rows)), ("Persons", persons(params.photos_dir, rows)),
                ("Recogniser", recogniser(calibration, genuine, impostor)), ("Distributions", distributions(rows))]
    lead = f"profile {params.profile}: {len(accepted(rows))} of {len(rows)} photos are used"
    write_bytes(folder / "index.html", report.page("Curated photos", sections, lead).encode())


def summary(rows: list[dict]) -> report.Block:
    kept = accepted(rows)
    by_split = {name: [row for row in kept if row["split"] == name] for name in SPLITS}
    table = [[name, len({row["person"] for row in own}), len(own)] for name, own in by_split.items()]
    table.append(["rejected", "–", len(rows) - len(kept)])
    return report.table(["split", "persons", "photos"], table)


def reasons(rows: list[dict]) -> list[report.Block]:
    count = Counter(kind(row["reason"]) for row in rows if row["verdict"] == REJECTED)
    return [report.table(["reason", "photos"], count.most_common())] if count else [report.paragraph("None was.")]


def kind(reason: str) -> str:
    """A reason without its numbers and names."""
    return reason.partition(":")[0].partition(" of ")[0].partition(" as ")[0]


def rejects(folder: Path, rows: list[dict]) -> list[report.Block]:
    bad = [row for row in rows if row["verdict"] == REJECTED]
    said = [report.paragraph(f"{min(len(bad), REJECTS)} of {len(bad)} are shown.")]
    cells = [[picture(folder, row), row["uri"], row["reason"]] for row in bad[:REJECTS]]
    return [*said, report.table(["photo", "from", "reason"], cells)] if bad else said


def persons(folder: Path, rows: list[dict]) -> list[report.Block]:
    by_person = defaultdict(list)
    for row in accepted(rows):
        by_person[row["person"]].append(row)
    shown = list(by_person.items())[:PERSONS]
    cells = [[f"{name} ({own[0]['split']}, {len(own)})", *(picture(folder, row) for row in own[:PER_PERSON])]
             for name, own in shown]
    return [report.paragraph(f"{len(shown)} of {len(by_person)} persons, up to {PER_PERSON} photos each."),
            report.strip([], cells)]


def picture(folder: Path, row: dict) -> report.Block:
    if row["shard"] is None:
        return report.thumbnail(None)
    turn = "" if row["yaw"] is None else f" yaw {row['yaw']:.0f} pitch {row['pitch']:.0f} quality {row['quality']:.2f}"
    return report.thumbnail(read_image(folder, row), f"{row['uri']}:{turn} {row['caption'] or ''}", SIDE)


def recogniser(calibration: dict, genuine: np.ndarray, impostor: np.ndarray) -> list[report.Block]:
    def draw(axes) -> None:
        bins = np.linspace(min(impostor.min(), genuine.min()), 1, 60)
        axes.hist(impostor, bins, density=True, alpha=.6, label="different persons")
        axes.hist(genuine, bins, density=True, alpha=.6, label="same person")
        axes.set_xlabel("cosine similarity")
        axes.set_yticks([])
        axes.legend(frameon=False)
    cells = [[f"{float(rate):.1%}", found["threshold"], f"{found['true_match']:.1%}",
              f"{found['low']:.2%} to {found['high']:.2%}"]
             for rate, found in calibration["false_match"].items()]
    return [report.paragraph(f"{calibration['recogniser']}, {calibration['persons']} persons, persons named by: "
                             f"{calibration['labels']}. AUC {calibration['auc']:.4f}; median distance "
                             f"{calibration['distance']['genuine_median']:.3f} same person, "
                             f"{calibration['distance']['impostor_median']:.3f} different."),
            report.table(["false-match rate", "similarity", "same person found", "rate among others (95 %)"], cells),
            report.picture(report.plot(draw))]


def distributions(rows: list[dict]) -> list[report.Block]:
    blocks = []
    for name, title in MEASURED.items():
        values = {used: [row[name] for row in rows if row[name] is not None and (row["verdict"] == REJECTED) != used]
                  for used in (True, False)}

        def draw(axes, values=values, title=title) -> None:
            axes.hist([values[True], values[False]], 40, stacked=True, label=["used", "rejected"])
            axes.set_xlabel(title)
            axes.set_ylabel("photos")
            axes.legend(frameon=False)
        blocks.append(report.picture(report.plot(draw, 6, 2.4)))
    return blocks
