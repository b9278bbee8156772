"""Every number that the evaluation reports: its name, what it means, which way is better, where it is shown.

One table for the report page, the plots, the log, MLflow and `dvc metrics`: a number without an entry is not reported.
The names by which a champion may be chosen stand in `params.Register` too, so that a misspelt one is refused at once; a
test holds them to this table.

A plain name is what the independent recogniser says, which never filtered, picked or trained; `_filter` is the same by
the recogniser that filtered the training pairs, and is the less honest one.
"""

from typing import NamedTuple


class Metric(NamedTuple):
    """heading: the table of the report it stands in. better: "high", "low", or "" where neither is."""

    name: str
    heading: str
    better: str
    meaning: str


BY_FILTER = "the same by the recogniser that filtered the training pairs"
IDENTITY, ALIGNMENT = "Identity", "Prompt alignment"
COPYING, SHARP, TOGETHER = "Copying and diversity", "Sharpness", "Two people in one picture"
GAINS, LEARNT = "Against the base", "Against the pretrained bundle"
TOP1 = (
    "share of images whose nearest person, among the test people, is the right one; the gallery holds the mean "
    "direction of each person's real photos other than the reference"
)
COPY = (
    "(θ_gt − θ_gr) / θ_tr for image g, reference r, other photo t: +1 copies the reference, −1 sits on the other "
    "photo, +1 is also given without a face"
)
BOTH = (
    "share of pictures of two people, each asked for in one half, in which either face is nearer to its own reference "
    "than to the other's. Intervals are over pictures"
)
COMPARED = ("identity", "top1", "prompt_alignment", "copy_paste", "identity_filter")

TABLE = (
    Metric("identity", IDENTITY, "high", "cosine between image and reference; 0 without a face"),
    Metric("identity_other", IDENTITY, "high", "the same to another real photo, which the model never saw"),
    Metric("top1", IDENTITY, "high", TOP1),
    Metric("identity_filter", IDENTITY, "high", BY_FILTER),
    Metric("identity_other_filter", IDENTITY, "high", BY_FILTER),
    Metric("top1_filter", IDENTITY, "high", BY_FILTER),
    Metric("face_found", IDENTITY, "high", "share of images with a face; one without counts as a failure everywhere"),
    Metric("prompt_alignment", ALIGNMENT, "high", "mean of the probes where there are probes, else the CLIP score"),
    Metric("clip_score", ALIGNMENT, "high", "cosine between image and prompt by CLIP towers that were never finetuned"),
    Metric("probe_expression", ALIGNMENT, "high", "share of images in which a probe sees the expression asked for"),
    Metric("probe_pose", ALIGNMENT, "high", "share in which it sees the head's pose"),
    Metric("probe_backdrop", ALIGNMENT, "high", "share in which it sees the backdrop"),
    Metric("probe_clothing", ALIGNMENT, "high", "share in which it sees the garment, and its colour"),
    Metric("copy_paste", COPYING, "low", COPY),
    Metric("copy_paste_filter", COPYING, "low", BY_FILTER),
    Metric("yaw_spread", COPYING, "high", "standard deviation of the head's turn over prompts and seeds, degrees"),
    Metric("yaw_follows_reference", COPYING, "", "correlation of the reference's turn with the image's: 0 is wanted"),
    Metric("expression_spread", COPYING, "high", "distinct expressions that the probes see, per image"),
    Metric(
        "sharpness",
        SHARP,
        "high",
        "face detector's score × sharpness relative to real photos of the model's size, at most 1: it sees blur and "
        "broken faces, and rises with noise. It says nothing of beauty: people must judge that",
    ),
    Metric("together_faces", TOGETHER, "high", "share of pictures of two people in which two faces are found"),
    Metric("together", TOGETHER, "high", BOTH),
    Metric("together_filter", TOGETHER, "high", BY_FILTER),
    *(Metric(f"{name}_gain", GAINS, "", f"{name}, minus the base's: same prompts, same noise") for name in COMPARED),
    *(Metric(f"{name}_learnt", LEARNT, "", f"{name}, minus the pretrained bundle's, likewise") for name in COMPARED),
)
BY_NAME = {metric.name: metric for metric in TABLE}
HEADLINE = ("identity", "top1", "copy_paste", "prompt_alignment")  # in the log, and of `HEADLINERS` in dvc metrics
HEADLINERS = ("base", "stage1", "stage4")


def headings() -> dict[str, tuple[str, ...]]:
    """The tables of the report: heading -> names in their order."""
    found: dict[str, tuple[str, ...]] = {}
    for metric in TABLE:
        found[metric.heading] = (*found.get(metric.heading, ()), metric.name)
    return found


def checked(models: dict[str, dict]) -> dict[str, dict]:
    """The metrics of all models, if each has an entry."""
    unknown = {name for row in models.values() for name in row} - set(BY_NAME)
    assert not unknown, f"name these in iy/metrics.py: {sorted(unknown)}"
    return models


def headline(models: dict[str, dict]) -> dict[str, dict[str, float]]:
    """The dozen values that `dvc metrics show` prints."""
    return {model: {name: models[model][name]["value"] for name in HEADLINE} for model in HEADLINERS if model in models}
