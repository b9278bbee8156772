"""What is the same for all models: people, prompts, cells, references; and what came of one model."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from iy.evaluate.alignment import Clip
from iy.evaluate.look import Look, Observer
from iy.evaluate.measure import Gallery, Values
from iy.evaluate.prompts import Prompt, Subject
from iy.params import Params

STAGES = (1, 2, 3, 4)


@dataclass(frozen=True)
class Place:
    """One cell of the benchmark: indices into subjects and prompts, and which of the seeds."""

    subject: int
    prompt: int
    number: int


def places(subjects: int, prompts: int, seeds: int) -> list[Place]:
    """All cells, person by person."""
    return [Place(s, p, n) for s in range(subjects) for p in range(prompts) for n in range(seeds)]


@dataclass
class Benchmark:
    """Everything that is the same for all models. crops: each subject's masked reference, uint8 (S, S, 3)."""

    settings: Params
    subjects: list[Subject]
    prompts: list[Prompt]
    places: list[Place]
    crops: list[np.ndarray]
    observer: Observer
    gallery: Gallery
    clip: Clip
    probes: Any

    @property
    def people(self) -> list[str]:
        """The person of every cell."""
        return [self.subjects[place.subject].person for place in self.places]


@dataclass
class Result:
    """One model's cells: measures (N,), looks, what the probes see, and the images shown (by index of the cell)."""

    values: Values
    looks: list[Look]
    seen: dict[str, list[str]] | None
    shown: dict[int, np.ndarray] = field(default_factory=dict)
