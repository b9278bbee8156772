"""The trade-off from stage to stage, as in the paper's Fig. 5, and measures per stage; as CSV and JSON for DVC too."""

import csv
from pathlib import Path
from typing import Any

from iy import report
from iy.metrics import ALIGNMENT, headings
from iy.storage import write_bytes, write_json

MODELS = ("base", "pretrained", "stage1", "stage2", "stage3", "stage4")
CORNERS = {  # where a model's name stands beside its point, in points of type: near ones keep apart
    "base": (0, -30),
    "pretrained": (66, 44),
    "stage1": (-38, 36),
    "stage2": (38, 20),
    "stage3": (-38, -20),
    "stage4": (38, -36),
}
CURVES = {  # measures drawn together, by the name of the picture
    "identity": ("identity", "identity_other", "identity_filter", "identity_other_filter"),
    "identification": ("top1", "top1_filter"),
    "copy_paste": ("copy_paste", "copy_paste_filter"),
    "alignment": headings()[ALIGNMENT],
}


def write(folder: Path, metrics: dict[str, dict]) -> dict[str, bytes]:
    """CSV and JSON files for DVC, PNG files for people; returns the PNGs by name."""
    folder.mkdir(parents=True)
    rows = [{"model": model, "metric": name, **found} for model, row in metrics.items() for name, found in row.items()]
    with open(folder / "metrics.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["model", "metric", "value", "low", "high", "n"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_json(
        folder / "trade_off.json",
        [
            {
                "model": model,
                "prompt_alignment": metrics[model]["prompt_alignment"]["value"],
                "identity": metrics[model]["identity"]["value"],
            }
            for model in MODELS
            if model in metrics
        ],
    )
    pictures = {"trade_off": trade_off(metrics)} | {name: curve(metrics, names) for name, names in CURVES.items()}
    for name, data in pictures.items():
        write_bytes(folder / f"{name}.png", data)
    return pictures


def bars(found: dict) -> list[list[float]]:
    """Lengths of the interval below and above the value, for matplotlib: a percentile interval may leave it out."""
    return [[max(0.0, found["value"] - found["low"])], [max(0.0, found["high"] - found["value"])]]


def trade_off(metrics: dict[str, dict]) -> bytes:
    """Prompt alignment against identity (independent recogniser), an arrow from each stage to the next."""

    def draw(axes: Any) -> None:
        path = []
        for number, model in enumerate(model for model in MODELS if model in metrics):
            x, y = metrics[model]["prompt_alignment"], metrics[model]["identity"]
            base = model in ("base", "pretrained")
            colour = "grey" if base else f"C{number - 1}"  # the name's too: a neighbour's point may lie nearer to it
            axes.errorbar(
                x["value"],
                y["value"],
                bars(y),
                bars(x),
                fmt="s" if base else "o",
                elinewidth=0.8,
                alpha=0.9,
                color=colour,
            )
            axes.annotate(
                model,
                (x["value"], y["value"]),
                CORNERS[model],
                textcoords="offset points",
                fontsize=9,
                color=colour,
                ha="center",
                va="center",
                arrowprops={"arrowstyle": "-", "lw": 0.5, "color": colour},
            )
            if not base:
                path.append((x["value"], y["value"]))
        for start, end in zip(path, path[1:], strict=False):
            axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "grey", "lw": 1.2})
        if "real" in metrics:
            axes.axhline(metrics["real"]["identity"]["value"], color="#1a7f37", linestyle="--", label="real photos")
            axes.legend(frameon=False, fontsize=8)
        axes.margins(0.08, 0.2)  # room for the names of the lowest and highest
        axes.set(xlabel="prompt alignment", ylabel="identity (independent recogniser's cosine)")

    return report.plot(draw, 7, 4.5)


def curve(metrics: dict[str, dict], names: tuple[str, ...]) -> bytes:
    """Measures from base to stage 4 with intervals."""

    def draw(axes: Any) -> None:
        models = [model for model in MODELS if model in metrics]
        for shift, name in enumerate(name for name in names if name in metrics["base"]):
            found = [metrics[model][name] for model in models]
            lengths = [[bars(one)[side][0] for one in found] for side in (0, 1)]
            axes.errorbar(
                [i + 0.04 * shift for i in range(len(models))],
                [one["value"] for one in found],
                lengths,
                fmt="o-",
                capsize=2,
                label=name,
            )
        axes.set_xticks(range(len(models)), models)
        axes.legend(frameon=False, fontsize=8)

    return report.plot(draw, 6, 3.5)
