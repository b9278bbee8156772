"""Two held-out people in one picture, each in their half: does either face resemble its own reference more?"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from iy.evaluate import identity
from iy.evaluate.benchmark import Benchmark
from iy.evaluate.bootstrap import Estimate, estimate
from iy.evaluate.look import Look
from iy.evaluate.measure import RECOGNISERS
from iy.generate import Cell, draw
from iy.seeds import cell_seed

HALVES = ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0))  # left and right, in shares of the picture


@dataclass
class Together:
    """The pairs (indices of subjects, left and right), their pictures, and per measure 0 or 1 for each."""

    pairs: list[tuple[int, int]]
    images: list[np.ndarray]
    values: dict[str, np.ndarray]

    def metrics(self, rounds: int, seed: int) -> dict[str, Estimate]:
        return {name: estimate(list(array[:, None]), rounds, seed) for name, array in self.values.items()}


def evaluate(benchmark: Benchmark, pipeline: Any) -> Together:
    """Draw and judge as many pairs as the settings ask."""
    settings = benchmark.settings
    pairs = choose(len(benchmark.subjects), settings.evaluate.together, settings.seed)
    images = pictures(benchmark, pipeline, pairs)
    known = [benchmark.gallery.people[subject.person].reference for subject in benchmark.subjects]
    rows = [
        resembles(faces(benchmark, image), (known[left], known[right]))
        for image, (left, right) in zip(images, pairs, strict=True)
    ]
    return Together(pairs, images, {name: np.array([row[name] for row in rows]) for name in rows[0]})


def choose(people: int, count: int, seed: int) -> list[tuple[int, int]]:
    """`count` pairs of different people in random order, every pair once before one comes again."""
    every = list(itertools.combinations(range(people), 2))
    rng = np.random.default_rng([seed, 8])
    rounds = [every[i] for _ in range(-(-count // len(every))) for i in rng.permutation(len(every))]
    return [(a, b) if rng.random() < 0.5 else (b, a) for a, b in rounds[:count]]


def pictures(benchmark: Benchmark, pipeline: Any, pairs: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """One picture (S, 2 S, 3) of each pair; the prompts take turns."""
    settings, prompts = benchmark.settings, benchmark.prompts
    crops = benchmark.crops
    cells = []
    for i, (left, right) in enumerate(pairs):
        people = f"{benchmark.subjects[left].person}+{benchmark.subjects[right].person}"
        which = i % len(prompts)
        seed = cell_seed(settings.seed, people, which, i)
        cells.append(Cell(prompts[which].text, (crops[left], crops[right]), seed))
    section, how = settings.evaluate, settings.draw
    return draw(
        pipeline,
        cells,
        steps=how.steps,
        guidance=how.guidance,
        identity_guidance=how.identity_guidance,
        batch=min(section.batch, len(cells)),
        progress="two people",
        width=settings.base.image_size * 2,
        regions=HALVES,
    )


def faces(benchmark: Benchmark, image: np.ndarray) -> list[Look]:
    """The two biggest faces from left to right; fewer where fewer are found."""
    observer = benchmark.observer
    found = observer.analyser.detect(image)[:2]
    return [observer.read(image, face) for face in sorted(found, key=lambda face: float(face.box[0] + face.box[2]))]


def resembles(seen: Sequence[Look], references: tuple[Look, Look]) -> dict[str, float]:
    """1 where both faces are there, and nearer to their own reference than to the other's."""
    row = {"together_faces": float(len(seen) == 2)}
    for suffix, name in RECOGNISERS.items():
        own = [getattr(look, name) for look in references]
        row["together" + suffix] = float(
            len(seen) == 2
            and all(
                identity.cosine(getattr(face, name), own[i]) > identity.cosine(getattr(face, name), own[1 - i])
                for i, face in enumerate(seen)
            )
        )
    return row
