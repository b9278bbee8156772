"""The report: pictures person by person and stage by stage, tables with intervals, and what each number means."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from iy import report
from iy.evaluate import together
from iy.evaluate.draw import Place, reference_crop
from iy.storage import png, read_image, write_bytes

if TYPE_CHECKING:
    from iy.evaluate.run import Benchmark, Result

SHOWN_PEOPLE, SHOWN_PROMPTS, GRIDS = 12, 12, 4
TABLES = {
    "Identity": (
        "identity",
        "identity_other",
        "identity_judge",
        "identity_judge_other",
        "top1",
        "top1_judge",
        "face_found",
    ),
    "Prompt alignment": (
        "prompt_alignment",
        "clip_score",
        "probe_expression",
        "probe_pose",
        "probe_backdrop",
        "probe_clothing",
    ),
    "Copying and diversity": (
        "copy_paste",
        "copy_paste_judge",
        "yaw_spread",
        "yaw_follows_reference",
        "expression_spread",
    ),
    "Appeal (a stand-in)": ("appeal",),
    "Two people in one picture": ("together_faces", "together", "together_judge"),
    "Against the base": ("identity_gain", "identity_judge_gain", "top1_judge_gain", "prompt_alignment_gain"),
}
MEANING = (
    (
        "identity",
        "cosine between image and reference by the recogniser that filtered the training pairs; 0 without a face",
    ),
    ("…_other", "the same to another real photo of the person, which the model never saw"),
    ("…_judge", "by the second, independent recogniser, which never filtered, picked or trained"),
    (
        "top1",
        "share of images whose nearest person, among the test people, is the right one; the gallery holds the mean "
        "direction of each person's real photos other than the reference",
    ),
    ("face_found", "share of images with a face; an image without one counts as a failure everywhere"),
    ("prompt_alignment", "mean of the four probes where there are probes, else the CLIP score"),
    ("clip_score", "cosine between image and prompt by the CLIP towers named in the settings, never finetuned"),
    (
        "copy_paste",
        "(θ_gt − θ_gr) / θ_tr for image g, reference r, other photo t: +1 copies the reference, −1 sits on the "
        "other photo, +1 is also given without a face",
    ),
    ("yaw_spread", "standard deviation of the head's turn over prompts and seeds, degrees"),
    ("yaw_follows_reference", "correlation of the reference's turn with the image's: 0 is wanted"),
    ("expression_spread", "distinct expressions that the probes see, per image"),
    (
        "appeal",
        "face detector's score × sharpness relative to real photos of the model's size, at most 1. No aesthetic model "
        "stands behind it: it sees blur and broken faces, not beauty. People must judge that",
    ),
    (
        "together",
        "share of pictures of two people, each asked for in one half, in which either face is nearer to its own "
        "reference than to the other's; together_faces: in which two faces are found. Intervals are over pictures",
    ),
    ("…_gain", "stage minus base, same prompts and same noise"),
    (
        "real",
        "real photos of the test people at the model's size: the ceiling. Their copy-paste is between three photos",
    ),
)


def shows(place: Place) -> bool:
    """Is this cell in the report?"""
    return place.subject < SHOWN_PEOPLE and place.prompt < SHOWN_PROMPTS and place.number == 0


def write(
    folder: Path,
    benchmark: "Benchmark",
    results: dict[str, "Result"],
    metrics: dict,
    plots: dict[str, bytes],
    pairs: together.Together | None,
) -> None:
    """index.html and, for the first people, images/person-NN.png."""
    chance = 1 / len(benchmark.subjects)
    sections = [
        (
            "Trade-off",
            [
                report.paragraph(
                    "Each arrow leads from a stage to the next, as in the paper's Fig. 5. Bars are 95 % intervals."
                ),
                report.picture(plots["trade_off"]),
            ],
        ),
        ("Numbers", tables(metrics, chance)),
        ("Images", pictures(benchmark, results)),
        *([("Two people", [together.block(benchmark, pairs)])] if pairs else []),
        ("Curves", [report.picture(plots[name], name) for name in plots if name != "trade_off"]),
        ("What the numbers mean", meaning(benchmark)),
    ]
    best, base = metrics["stage4"], metrics["base"]
    lead = (
        f"{len(benchmark.subjects)} people nobody trained on × {len(benchmark.prompts)} prompts: stage 4 is recognised "
        f"in {best['top1_judge']['value']:.0%} of images (base {base['top1_judge']['value']:.0%}, chance {chance:.0%}) "
        f"and follows the prompt to {best['prompt_alignment']['value']:.2f} "
        f"(base {base['prompt_alignment']['value']:.2f})."
    )
    write_bytes(folder / "index.html", report.page("Evaluation", sections, lead).encode())
    write_grids(folder / "images", benchmark, results)


def tables(metrics: dict, chance: float) -> list[report.Block]:
    blocks = []
    for title, names in TABLES.items():
        columns = [name for name in names if any(name in row for row in metrics.values())]
        rows = [
            [model, *(said(row.get(name)) for name in columns)]
            for model, row in metrics.items()
            if any(name in row for name in columns)
        ]
        blocks += [report.paragraph(title), report.table(["model", *columns], rows)]
    n = metrics["stage4"]["identity"]["n"]
    return [
        *blocks,
        report.paragraph(
            f"Value [95 % interval], people drawn again with replacement. {n} images per model. Chance "
            f"of identification: {chance:.1%}."
        ),
    ]


def said(found: dict | None) -> str:
    return "" if found is None else f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def pictures(benchmark: "Benchmark", results: dict[str, "Result"]) -> list[report.Block]:
    """Per person a table: a row per model, a column per prompt; numbers of each image under the pointer."""
    blocks = []
    for number, subject in enumerate(benchmark.subjects[:SHOWN_PEOPLE]):
        photo = report.thumbnail(read_image(benchmark.params.photos_dir, subject.reference), "reference")
        crop = report.thumbnail(reference_crop(benchmark.params, subject.reference), "what the model sees")
        other = report.thumbnail(read_image(benchmark.params.photos_dir, subject.other), "another photo")
        cells = [i for i, place in enumerate(benchmark.places) if place.subject == number and shows(place)]
        rows = [
            [label, *(report.thumbnail(result.shown[i], numbers(result, i)) for i in cells)]
            for label, result in results.items()
        ]
        header = ["", *(benchmark.prompts[benchmark.places[i].prompt].text for i in cells)]
        blocks += [
            report.strip(["reference", "what the model sees", "another photo"], [[photo, crop, other]]),
            report.strip(header, rows),
        ]
    return blocks


def numbers(result: "Result", i: int) -> str:
    names = ("identity", "identity_judge", "top1_judge", "prompt_alignment", "copy_paste")
    return ", ".join(f"{name} {result.values[name][i]:.2f}" for name in names)


def meaning(benchmark: "Benchmark") -> list[report.Block]:
    observer, settings = benchmark.observer, benchmark.params.evaluate
    blocks = [
        report.table(["number", "meaning"], MEANING),
        report.paragraph(
            f"Filtering recogniser: {observer.analyser.recogniser.name}; second recogniser: {observer.judge.name}. "
            f"CLIP score by {settings.clip or 'the base’s own two towers, as they were before finetuning'}."
        ),
    ]
    if benchmark.probes is not None:
        accuracy = ", ".join(f"{name} {value:.1%}" for name, value in sorted(benchmark.probes.accuracy.items()))
        blocks.append(
            report.paragraph(
                f"The probes' own accuracy on held-out renders: {accuracy}. An alignment above it means nothing."
            )
        )
    return blocks


def write_grids(folder: Path, benchmark: "Benchmark", results: dict[str, "Result"]) -> None:
    """person-NN.png: reference at the left of each row, prompts as columns, models as rows."""
    for number, subject in enumerate(benchmark.subjects[:GRIDS]):
        crop = reference_crop(benchmark.params, subject.reference)
        cells = [i for i, place in enumerate(benchmark.places) if place.subject == number and shows(place)]
        rows = [[crop, *(result.shown[i] for i in cells)] for result in results.values()]
        labels = ["reference", *(benchmark.prompts[benchmark.places[i].prompt].attributes["expression"] for i in cells)]
        write_bytes(folder / f"person-{number:02d}.png", png(np.asarray(report.grid(rows, list(results), labels))))


def read_png(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
