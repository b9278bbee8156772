"""The report: pictures person by person and stage by stage, tables with intervals, and what each number means."""

from pathlib import Path

import numpy as np

from iy import metrics as table
from iy import report
from iy.evaluate.benchmark import Benchmark, Place, Result
from iy.evaluate.draw import Export
from iy.evaluate.together import Together
from iy.storage import read_image, write_bytes

SHOWN_PEOPLE, SHOWN_PROMPTS, GRIDS = 12, 12, 4
COUPLES = 12  # pictures of two people


def shows(place: Place) -> bool:
    """Is this cell in the report?"""
    return place.subject < SHOWN_PEOPLE and place.prompt < SHOWN_PROMPTS and place.number == 0


def write(
    folder: Path,
    benchmark: Benchmark,
    results: dict[str, Result],
    metrics: dict,
    plots: dict[str, bytes],
    pairs: Together | None,
) -> None:
    """index.html."""
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
        *([("Two people", [couples(benchmark, pairs)])] if pairs else []),
        ("Curves", [report.picture(plots[name], name) for name in plots if name != "trade_off"]),
        ("What the numbers mean", meaning(benchmark)),
    ]
    best, base = metrics["stage4"], metrics["base"]
    lead = (
        f"{len(benchmark.subjects)} people nobody trained on × {len(benchmark.prompts)} prompts: stage 4 is recognised "
        f"in {best['top1']['value']:.0%} of images (base {base['top1']['value']:.0%}, chance {chance:.0%}) "
        f"and follows the prompt to {best['prompt_alignment']['value']:.2f} "
        f"(base {base['prompt_alignment']['value']:.2f})."
    )
    write_bytes(folder / "index.html", report.page("Evaluation", sections, lead).encode())


def tables(metrics: dict, chance: float) -> list[report.Block]:
    blocks = []
    for title, names in table.headings().items():
        columns = [name for name in names if any(name in row for row in metrics.values())]
        rows = [
            [model, *(said(row.get(name)) for name in columns)]
            for model, row in metrics.items()
            if any(name in row for name in columns)
        ]
        if columns:
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


def pictures(benchmark: Benchmark, results: dict[str, Result]) -> list[report.Block]:
    """Per person a table: a row per model, a column per prompt; numbers of each image under the pointer."""
    blocks = []
    for number, (subject, masked) in enumerate(zip(benchmark.subjects, benchmark.crops, strict=True)):
        if number == SHOWN_PEOPLE:
            break
        photo = report.thumbnail(read_image(benchmark.settings.photos_dir, subject.reference), "reference")
        crop = report.thumbnail(masked, "what the model sees")
        other = report.thumbnail(read_image(benchmark.settings.photos_dir, subject.other), "another photo")
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


def numbers(result: Result, i: int) -> str:
    return ", ".join(f"{name} {result.values[name][i]:.2f}" for name in table.HEADLINE)


def meaning(benchmark: Benchmark) -> list[report.Block]:
    observer, section = benchmark.observer, benchmark.settings.evaluate
    blocks = [
        report.table(["number", "meaning"], [(one.name, one.meaning) for one in table.TABLE]),
        report.paragraph(
            "real: real photos of the test people at the model's size, the ceiling; their copy-paste is between three "
            "photos. pretrained: the bundle that stage 1 begins with."
        ),
        report.paragraph(
            f"Filtering recogniser: {observer.analyser.recogniser.name}; independent one: {observer.second.name}. "
            f"CLIP score by {section.clip or 'the base’s own two towers, as they were before finetuning'}."
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


def couples(benchmark: Benchmark, found: Together) -> report.Block:
    """The picture of two people between its references, pair by pair."""
    rows = [
        [
            report.thumbnail(benchmark.crops[left], "left reference"),
            report.thumbnail(image, ", ".join(f"{name} {array[i]:.0f}" for name, array in found.values.items()), 192),
            report.thumbnail(benchmark.crops[right], "right reference"),
        ]
        for i, ((left, right), image) in enumerate(zip(found.pairs[:COUPLES], found.images, strict=False))
    ]
    return report.table(["left", "stage 4", "right"], rows)


def write_grids(folder: Path, benchmark: Benchmark, results: dict[str, Result], export: Export) -> list[np.ndarray]:
    """person-NN.png: reference at the left of each row, prompts as columns, models as rows; and the same as arrays."""
    grids = []
    for number, crop in enumerate(benchmark.crops[:GRIDS]):
        cells = [i for i, place in enumerate(benchmark.places) if place.subject == number and shows(place)]
        rows = [[crop, *(result.shown[i] for i in cells)] for result in results.values()]
        labels = ["reference", *(benchmark.prompts[benchmark.places[i].prompt].attributes["expression"] for i in cells)]
        grids.append(np.asarray(report.grid(rows, list(results), labels)))
        write_bytes(folder / f"person-{number:02d}.png", export(grids[-1]))
    return grids
