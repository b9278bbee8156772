"""From plans to images and rows: draw, refine towards the reference, measure against it, keep the best."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from iy.faces import Analyser, recogniser_name, similarity
from iy.faces.crop import reference_crop
from iy.params import Params
from iy.records import REJECTED
from iy.storage import png, sha256
from iy.synpairs.accept import Kind, choose
from iy.synpairs.bounds import Bounds
from iy.synpairs.generators import Generator
from iy.synpairs.plan import Plan
from iy.synpairs.refiners import Refiner


class Made(NamedTuple):
    """images: before refinement and after each pass, uint8 (H, W, 3); similarity: of each to the reference, or None."""

    images: list[np.ndarray]
    similarity: list[float | None]


class Maker:
    """Draws pairs, refines them, measures them with the filtering recogniser. model: names what draws and refines."""

    def __init__(
        self,
        settings: Params,
        generator: Generator,
        refiner: Refiner | None,
        analyser: Analyser,
        model: str,
        rewriter: str,
        bounds: Bounds,
    ) -> None:
        self.settings, self.analyser, self.bounds = settings, analyser, bounds
        self.generator, self.refiner = generator, refiner
        self.origin = {
            "model": model,
            "rewriter": rewriter,
            "recogniser": recogniser_name(analyser),
            "lower": bounds.lower,
            "upper": bounds.upper,
            "decided_by": "automatic",
        }

    def reference(self, photo: dict) -> np.ndarray:
        """The masked face crop of a PHOTO row, as the model was trained on."""
        return reference_crop(self.settings, self.settings.photos_dir, photo)

    def make(self, plans: Sequence[Plan]) -> list[Made]:
        """Draw, then refine towards the reference pass by pass, each time from the most similar image so far."""
        faces = [self.reference(plan.reference) for plan in plans]
        drawn = self.generator.draw(plans, faces)
        made = [Made([image], [self.measure(image, plan)]) for image, plan in zip(drawn, plans, strict=True)]
        for number in range(1, self.settings.synpairs.rounds + 1):
            starts = [one.images[self.start(one.similarity)] for one in made]
            assert self.refiner is not None, "passes are made where something refines"
            images = self.refiner.refine(plans, faces, starts, number)
            for one, image, plan in zip(made, images, plans, strict=True):
                one.images.append(image)
                one.similarity.append(self.measure(image, plan))
        return made

    def start(self, similarities: list[float | None]) -> int:
        """Index of the image that the next pass starts from: the best so far that is no copy, the latest if none is."""
        best = choose(similarities, self.bounds).kept_pass
        return len(similarities) - 1 if best is None else best

    def measure(self, image: np.ndarray, plan: Plan) -> float | None:
        seen = embed(self.analyser, image)
        return None if seen is None else float(similarity(seen, np.array(plan.reference["embedding"])))

    def row(self, plan: Plan, made: Made | None) -> tuple[dict, bytes | None]:
        """The PAIR row, without its place in a shard, and the kept image as PNG; `made`: None where no caption was."""
        photo = plan.reference
        row = (
            {key: photo[key] for key in ("person", "licence", "consent")}
            | self.origin
            | {
                "reference": photo["id"],
                "source_caption": photo["caption"],
                "caption": plan.rewrite.text,
                "changed": plan.rewrite.changed,
                "seed": plan.seed,
            }
        )
        if made is None:
            return row | {
                "id": sha256(f"{photo['id']}/{plan.number}/{plan.rewrite.text}".encode()),
                "verdict": REJECTED,
                "similarity": [],
                "reason": f"{Kind.NOT_REWRITTEN}: {plan.rewrite.problem}",
            }, None
        choice = choose(made.similarity, self.bounds)
        data = png(made.images[choice.kept_pass or 0])
        return row | {
            "id": sha256(data),
            "similarity": made.similarity,
            "kept_pass": choice.kept_pass,
            "verdict": choice.verdict,
            "reason": choice.reason,
        }, data


def embed(analyser: Analyser, image: np.ndarray) -> np.ndarray | None:
    """Embedding of the biggest face in uint8 (H, W, 3), or None when there is none."""
    faces = analyser.detect(image)
    return analyser.embed(image, faces[0]) if faces else None
