"""What a grid of `python -m foundation.stage1` shows: who is it, is it as asked, is it a copy? On the CPU, afterwards.

    python -m foundation.likeness OUT/grid.npz [--judge] [--write figures.json]

By dlib, the recogniser of development; the `pixels` arm learnt from it, so its figures are then not independent. The
judge is asked with --judge alone, once per claim. Intervals are 95 %, people drawn again. A missing face names nobody,
counts as the impostors' median and as a copy.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from foundation import grid
from foundation.grid import CANDIDATES, VARIANTS, Grid, Sitter
from iy import params
from iy.evaluate import identity
from iy.evaluate.bootstrap import Estimate, estimate
from iy.evaluate.probes import READS, load_probes
from iy.faces import Face, load_analyser, load_recogniser
from iy.faces.recognise import unit
from iy.seeds import derived_seed
from iy.storage import write_json

ROUNDS, GALLERY = 1000, 12
Embedded = list[np.ndarray | None]
Values = dict[str, np.ndarray]  # measure -> one number per cell


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("grid", type=Path)
    made.add_argument("--judge", action="store_true", help="ask fr_feature, the evaluation's judge, instead of dlib")
    made.add_argument("--probes", type=Path, default=Path("weights/text-only/probes"))
    made.add_argument("--write", type=Path, default=None, help="the figures as JSON")
    return made


def main() -> None:
    options = parser().parse_args()
    found, everybody = grid.read(options.grid)
    settings = params.load("studio")
    analyser = load_analyser(settings.faces, settings.usage, settings.device)
    chosen = load_recogniser("fr_feature", settings.usage, settings.device) if options.judge else analyser
    known = photo_embeddings(found, chosen) if options.judge else list(found.embedding)
    figures = measure(found, everybody, known, lambda image: looked_at(image, analyser, chosen))
    figures["asked"] = alignment(found, load_probes(options.probes))
    figures["recogniser"] = "judge (fr_feature)" if options.judge else "dlib (development)"
    for line in table(figures):
        print(line)
    if options.write:
        write_json(options.write, figures)


def looked_at(image: np.ndarray, analyser, recogniser) -> np.ndarray | None:
    faces = analyser.detect(image)
    return recogniser.embed(image, faces[0]) if faces else None


def photo_embeddings(found: Grid, recogniser) -> Embedded:
    return [
        recogniser.embed(photo, Face(box, landmarks, 1.0))
        for photo, box, landmarks in zip(found.photos, found.box, found.landmarks, strict=True)
    ]


def measure(
    found: Grid, everybody: list[Sitter], known: Embedded, look: Callable[[np.ndarray], np.ndarray | None]
) -> dict:
    """known: the photos' embeddings; look: a picture's, or None. Variant -> measure -> estimate, and the differences
    from the base that is told in words."""
    everyone = np.mean([unit(one) for one in known], 0)
    away = [unit(one) - everyone for one in known]
    templates = {str(one.person): identity.template([away[row] for row in one.others]) for one in everybody}
    values = {}
    for name in VARIANTS:
        seen: Embedded = [look(image) for image in found.pictures[name]]
        moved = [None if one is None else unit(one) - everyone for one in seen]
        values[name] = cell_values(moved, found, everybody, templates, away)
    result: dict = {name: estimates(several, len(found.sitters)) for name, several in values.items()}
    for name in ("words", "shuffled"):
        gained = {key: values["model"][key] - values[name][key] for key in values["model"]}
        result[f"model - {name}"] = estimates(gained, len(found.sitters))
    return result


def cell_values(
    seen: Embedded, found: Grid, everybody: list[Sitter], templates: dict[str, np.ndarray], away: list[np.ndarray]
) -> Values:
    """Per cell, sitter by sitter. Vectors are differences from the mean of all people."""
    strangers = impostors(templates)
    each = len(seen) // len(found.sitters)
    rows = []
    for cell, vector in enumerate(seen):
        sitter = found.sitters[cell // each]
        own = str(sitter.person)
        few, many = candidates(sitter, everybody, CANDIDATES, alike=True), candidates(sitter, everybody, GALLERY)
        reference, other = away[sitter.reference], away[sitter.others[0]]
        rows.append(
            {
                "top1 of its stratum": identity.identified(vector, own, {name: templates[name] for name in few}),
                "top1 of 12": identity.identified(vector, own, {name: templates[name] for name in many}),
                "cosine": strangers if vector is None else identity.cosine(vector, templates[own]),
                "copy-paste": identity.copy_paste(vector, reference, other),
                "face found": vector is not None,
            }
        )
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def impostors(templates: dict[str, np.ndarray]) -> float:
    """The median cosine of two people."""
    all_of_them = np.stack(list(templates.values()))
    return float(np.median((all_of_them @ all_of_them.T)[np.triu_indices(len(all_of_them), 1)]))


def candidates(sitter: Sitter, everybody: list[Sitter], count: int, alike: bool = False) -> list[str]:
    """The sitter and `count` - 1 others, at most; `alike`: of their gender, age and ancestry. The same every time."""
    others = [
        str(one.person)
        for one in everybody
        if one.person != sitter.person and (not alike or one.stratum == sitter.stratum)
    ]
    order = np.random.default_rng(derived_seed(sitter.person, count, alike)).permutation(len(others))
    return [str(sitter.person), *(others[i] for i in order[: count - 1])]


def estimates(values: Values, people: int) -> dict[str, Estimate]:
    return {name: estimate(np.array_split(several, people), ROUNDS, 0) for name, several in values.items()}


def alignment(found: Grid, probes) -> dict[str, dict[str, Estimate]]:
    """Variant -> attribute -> share of the pictures in which the probes see what was asked for."""
    result = {}
    for name in VARIANTS:
        seen = probes.read(list(found.pictures[name]))
        asked = {key: [row[key] for row in found.asked] * len(found.sitters) for key in READS}
        right = {key: np.array(seen[key]) == np.array(asked[key]) for key in READS}
        result[name] = estimates({key: one.astype(float) for key, one in right.items()}, len(found.sitters))
    return result


def table(figures: dict) -> list[str]:
    """Lines for the eye."""
    lines = [f"by {figures['recogniser']}"]
    for name in (*VARIANTS, "model - words", "model - shuffled"):
        lines.append(name)
        for key, one in {**figures[name], **figures["asked"].get(name, {})}.items():
            lines.append(f"  {key:<20} {one['value']:6.3f} [{one['low']:.3f}, {one['high']:.3f}]  n {one['n']}")
    return lines


if __name__ == "__main__":
    main()
