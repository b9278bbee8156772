"""The report of synpairs: what was made, by which bounds it was accepted, and how it looks pass by pass."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from iy import report
from iy.params import Adapter, Params, SynPairs
from iy.records import ACCEPTED
from iy.storage import atomic_folder, write_bytes, write_json
from iy.synpairs.accept import Kind

MANY = 0.1  # of pairs of different people that pass: then the lower bound assures little
LOOSE = "Many pairs of different people pass the lower bound: it assures little of the identity in these pairs."
USELESS = "No pass of refinement brought the pictures nearer to their references."


def write(
    settings: Params,
    rows: list[dict],
    summary: dict,
    genuine: np.ndarray,
    impostor: np.ndarray,
    examples: dict[str, list[np.ndarray]],
) -> Path:
    """reports/<profile>/synpairs: index.html and, for other tools, similarity.json. Returns the page's path."""
    passes = by_pass(rows)
    sections = [
        ("Pairs", verdicts(rows, summary)),
        ("Bounds", bounds(rows, summary, genuine, impostor)),
        ("Refinement", refinement(settings.synpairs, passes)),
        ("Examples", pictures(rows, examples, settings.synpairs.rounds)),
    ]
    lead = (
        f"{summary['pairs']['made']} synthetic photos of {len({row['person'] for row in rows})} training people, "
        f"{summary['pairs']['within bounds']} of them within the bounds."
    )
    folder = settings.report_dir("synpairs")
    with atomic_folder(folder) as aside:
        write_bytes(aside / "index.html", report.page("Synthetic pairs", sections, lead).encode())
        write_json(aside / "similarity.json", passes)
    return folder / "index.html"


def verdicts(rows: list[dict], summary: dict) -> list[report.Block]:
    counts = Counter((row["verdict"], row["reason"] or Kind.WITHIN) for row in rows)
    table = [
        [report.coloured(verdict, verdict == ACCEPTED), reason, count, f"{count / len(rows):.0%}"]
        for (verdict, reason), count in sorted(counts.items())
    ]
    blocks = [report.table(["verdict", "reason", "pairs", "share"], table)]
    if below := summary["pairs"]["kept below the bound"]:
        blocks.append(
            report.paragraph(
                f"{below} pairs did not reach the lower bound and were kept as the best available "
                "(synpairs.fallback_best), so that stage 2 has something to learn from: their identity is not assured."
            )
        )
    return [
        *blocks,
        report.paragraph(
            "Changed by the rewriter: "
            + ", ".join(
                f"{name} {count}"
                for name, count in Counter(name for row in rows for name in row["changed"]).most_common()
            )
        ),
    ]


def bounds(rows: list[dict], summary: dict, genuine: np.ndarray, impostor: np.ndarray) -> list[report.Block]:
    made = np.array([row["similarity"][row["kept_pass"]] for row in rows if row.get("kept_pass") is not None])

    def draw(axes: Any) -> None:
        everything = np.concatenate([genuine, impostor, made])
        ends = [*everything, summary["lower"], summary["upper"]]
        bins = np.linspace(min(ends), max(ends), 60)
        for values, label, colour in (
            (impostor, "different people", "#b3261e"),
            (genuine, "same person", "#1a7f37"),
            (made, "synthetic and its reference", "#1f6feb"),
        ):
            if len(values):
                axes.hist(values, bins, density=True, alpha=0.5, label=label, color=colour)
        for name in ("lower", "upper"):
            axes.axvline(
                summary[name], color="black", linestyle="--" if name == "lower" else ":", label=f"{name} bound"
            )
        axes.set(xlabel="cosine similarity", ylabel="density", xlim=(bins[0], bins[-1]))
        axes.legend(frameon=False, fontsize=8)

    auc = "unknown" if summary["auc"] is None else f"{summary['auc']:.4f}"
    different, same = summary["impostor"]["count"], summary["genuine"]["count"]
    said = (
        f"The lower bound {summary['lower']:.3f} lets {summary['false_match_rate']:.2%} of {different} pairs of "
        f"different people pass, and {summary['true_match_rate']:.1%} of {same} pairs of one person. The upper bound "
        f"{summary['upper']:.3f} is the {summary['upper_quantile']:.1%} quantile of one person's pairs. Recogniser "
        f"{summary['recogniser']}, AUC {auc}, on training photos whose one side was reduced to the "
        "model's size."
    )
    shown = [report.paragraph(said), report.picture(report.plot(draw, 7, 3.5))]
    if summary["false_match_rate"] > MANY:
        shown.insert(1, report.paragraph(report.coloured(LOOSE, False)))
    return shown


def by_pass(rows: list[dict]) -> list[dict]:
    """Per pass (0: before refinement): mean similarity of those with a face, share with a face, how often it was kept.

    gain: mean rise of similarity over the picture before refinement, of those whose face was found in both.
    """
    made = [row for row in rows if row["similarity"]]
    found = []
    for number in range(max((len(row["similarity"]) for row in made), default=0)):
        seen = [row["similarity"][number] for row in made if row["similarity"][number] is not None]
        both = [(row["similarity"][0], row["similarity"][number]) for row in made]
        gains = [after - before for before, after in both if before is not None and after is not None]
        found.append(
            {
                "pass": number,
                "similarity": round(float(np.mean(seen)), 4) if seen else None,
                "gain": round(float(np.mean(gains)), 4) if gains else None,
                "face_found": round(len(seen) / len(made), 4),
                "kept": sum(row["kept_pass"] == number for row in made),
            }
        )
    return found


def refinement(settings: SynPairs, passes: list[dict]) -> list[report.Block]:
    named = settings.generator
    drawn = "stage 1's bundle" if named is None else f"{named.cls} ({named.path}), from the caption alone"
    refined = "stage 1's bundle, image to image" if settings.refiner == "bundle" else settings.refiner
    if isinstance(settings.refiner_model, Adapter):
        refined = f"{settings.refiner} ({settings.refiner_model.path}/{settings.refiner_model.weights})"
    table = [
        [
            "before" if one["pass"] == 0 else f"pass {one['pass']}",
            "–" if one["similarity"] is None else f"{one['similarity']:.3f}",
            "–" if one["gain"] is None or one["pass"] == 0 else f"{one['gain']:+.3f}",
            f"{one['face_found']:.0%}",
            one["kept"],
        ]
        for one in passes
    ]
    shown = []
    if settings.rounds and all((one["gain"] or 0) <= 0 for one in passes):
        shown.append(report.paragraph(report.coloured(USELESS, False)))
    return [
        report.paragraph(f"Drawn by {drawn}; refined by {refined if settings.rounds else 'nothing'}."),
        *shown,
        report.table(["picture", "mean similarity", "gain over before", "face found", "was the best"], table),
    ]


def pictures(rows: list[dict], examples: dict[str, list[np.ndarray]], passes: int) -> list[report.Block]:
    header = ["reference", "before", *(f"pass {number}" for number in range(1, passes + 1)), "verdict", "caption"]
    table = []
    for row in (row for row in rows if row["id"] in examples):
        reference, *images = examples[row["id"]]
        cells = [report.thumbnail(reference, row["source_caption"] or "")]
        for number, (image, similarity) in enumerate(zip(images, row["similarity"], strict=True)):
            said = (
                "no face"
                if similarity is None
                else f"{similarity:.3f}" + (" best" if number == row["kept_pass"] else "")
            )
            cells.append(report.thumbnail(image, said) + report.paragraph(said))
        good = row["verdict"] == ACCEPTED
        verdict = report.coloured(row["verdict"], good) + report.paragraph(row["reason"] or Kind.WITHIN)
        table.append([*cells, verdict, row["caption"]])
    return [report.strip(header, table)]
