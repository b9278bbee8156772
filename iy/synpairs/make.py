"""From plans to images and rows: draw, refine towards the reference, measure against it, keep the best."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from iy.faces import Analyser, similarity
from iy.faces.crop import face_crop
from iy.generate import Cell, draw, redraw
from iy.model import ImagineYourselfPipeline
from iy.params import Params
from iy.records import REJECTED
from iy.storage import png, read_image, sha256
from iy.synpairs.calibrate import Bounds
from iy.synpairs.judge import judge
from iy.synpairs.plan import Plan
from iy.synpairs.rewriters import derived_seed


class Made(NamedTuple):
    """images: before refinement and after each pass, uint8 (H, W, 3); similarity: of each to the reference, or None."""

    images: list[np.ndarray]
    similarity: list[float | None]


class Maker:
    """Draws pairs with one bundle and measures them with the filtering recogniser."""

    def __init__(
        self,
        params: Params,
        pipeline: ImagineYourselfPipeline,
        analyser: Analyser,
        bundle: str,
        rewriter: str,
        bounds: Bounds,
    ) -> None:
        self.params, self.pipeline, self.analyser, self.bounds = params, pipeline, analyser, bounds
        self.origin = {
            "model": bundle,
            "rewriter": rewriter,
            "recogniser": recogniser_name(analyser),
            "lower": bounds.lower,
            "upper": bounds.upper,
            "decided_by": "automatic",
        }

    def reference(self, photo: dict) -> np.ndarray:
        """The masked face crop of a PHOTO row, as the model was trained on."""
        model, size = self.params.model, self.params.base.image_size
        return face_crop(
            read_image(self.params.photos_dir, photo),
            np.array(photo["box"]),
            np.array(photo["landmarks"]).reshape(5, 2),
            size,
            model.crop_margin,
            model.mask_face,
        )

    def make(self, plans: Sequence[Plan]) -> list[Made]:
        """Draw, then `passes` times image-to-image towards the reference, each time from the most similar image so
        far."""
        settings = self.params.synpairs
        options = dict(
            steps=settings.steps,
            guidance=settings.guidance,
            identity_guidance=settings.identity_guidance,
            batch=settings.batch,
        )
        faces = [self.reference(plan.reference) for plan in plans]
        drawn = self.first(plans, faces, options)
        made = [Made([image], [self.measure(image, plan)]) for image, plan in zip(drawn, plans, strict=True)]
        for number in range(1, settings.passes + 1):
            cells = [
                Cell(plan.rewrite.text, face, derived_seed(plan.seed, number))
                for plan, face in zip(plans, faces, strict=True)
            ]
            starts = [one.images[self.start(one.similarity)] for one in made]
            images = redraw(
                self.pipeline, cells, starts, strength=settings.strength, **options, progress=f"pass {number}"
            )
            for one, image, plan in zip(made, images, plans, strict=True):
                one.images.append(image)
                one.similarity.append(self.measure(image, plan))
        return made

    def first(self, plans: Sequence[Plan], faces: list[np.ndarray], options: dict) -> list[np.ndarray]:
        """The images that refinement begins with, by `synpairs.start`: drawn from noise, or the photo itself
        redrawn."""
        settings = self.params.synpairs
        cells = [
            Cell(plan.rewrite.text, None if settings.start == "text" else face, plan.seed)
            for plan, face in zip(plans, faces, strict=True)
        ]
        if settings.start != "photo":
            return draw(self.pipeline, cells, **options, progress="pairs")
        starts = [
            squared(read_image(self.params.photos_dir, plan.reference), self.params.base.image_size) for plan in plans
        ]
        return redraw(self.pipeline, cells, starts, strength=settings.strength, **options, progress="pairs")

    def start(self, similarities: list[float | None]) -> int:
        """Index of the image that the next pass starts from: the best so far that is no copy, the latest when none
        is."""
        best = judge(similarities, self.bounds).kept_pass
        return len(similarities) - 1 if best is None else best

    def measure(self, image: np.ndarray, plan: Plan) -> float | None:
        seen = embed(self.analyser, image)
        return None if seen is None else float(similarity(seen, np.array(plan.reference["embedding"])))

    def row(self, plan: Plan, made: Made | None) -> tuple[dict, bytes | None]:
        """The PAIR row, without its place in a shard, and the kept image as PNG; `made` is None where no caption
        was."""
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
                "reason": f"caption not rewritten: {plan.rewrite.problem}",
            }, None
        verdict = judge(made.similarity, self.bounds)
        data = png(made.images[verdict.kept_pass or 0])
        return row | {
            "id": sha256(data),
            "similarity": made.similarity,
            "kept_pass": verdict.kept_pass,
            "verdict": verdict.verdict,
            "reason": verdict.reason,
        }, data


def squared(image: np.ndarray, size: int) -> np.ndarray:
    """The middle square of uint8 (H, W, 3) as (size, size, 3)."""
    return np.asarray(ImageOps.fit(Image.fromarray(image), (size, size), Image.Resampling.LANCZOS))


def embed(analyser: Analyser, image: np.ndarray) -> np.ndarray | None:
    """Embedding of the biggest face in uint8 (H, W, 3), or None when there is none."""
    faces = analyser.detect(image)
    return analyser.embed(image, faces[0]) if faces else None


def recogniser_name(analyser: Analyser) -> str:
    return f"{analyser.recogniser.name}@{analyser.recogniser.version}"
