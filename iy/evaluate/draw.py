"""The cells of the benchmark and their images, shard by shard: an interrupted evaluation continues after its last
shard."""

import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from iy import resume
from iy.diffusion import Base
from iy.evaluate.prompts import Prompt, Subject
from iy.faces.crop import face_crop
from iy.generate import Cell, draw
from iy.model import ImagineYourselfPipeline, bundle
from iy.params import Params
from iy.seeds import cell_seed
from iy.storage import png, read_image, write_shard

SHARD = 256  # cells


@dataclass(frozen=True)
class Place:
    """One cell of the benchmark: indices into subjects and prompts, and which of the seeds."""

    subject: int
    prompt: int
    number: int


def places(subjects: int, prompts: int, seeds: int) -> list[Place]:
    """All cells, person by person."""
    return [Place(s, p, n) for s in range(subjects) for p in range(prompts) for n in range(seeds)]


def reference_crop(params: Params, row: dict) -> np.ndarray:
    """The masked face crop of a PHOTO row, as the model was trained on: uint8 (S, S, 3)."""
    return face_crop(
        read_image(params.photos_dir, row),
        np.array(row["box"]),
        np.array(row["landmarks"]).reshape(5, 2),
        params.base.image_size,
        params.model.crop_margin,
        params.model.mask_face,
    )


def cells(
    params: Params,
    subjects: Sequence[Subject],
    prompts: Sequence[Prompt],
    chosen: Sequence[Place],
    with_reference: bool,
) -> list[Cell]:
    faces = [reference_crop(params, subject.reference) if with_reference else None for subject in subjects]
    return [
        Cell(
            prompts[one.prompt].text,
            faces[one.subject],
            cell_seed(params.seed, subjects[one.subject].person, one.prompt, one.number),
        )
        for one in chosen
    ]


def images(
    params: Params, pipeline: ImagineYourselfPipeline, wanted: Sequence[Cell], folder: Path, name: str
) -> Iterator[list[np.ndarray]]:
    """uint8 images of `wanted`, SHARD at a time; drawn ones are kept as <folder>/<number>.tar and read from there."""
    settings = params.evaluate
    for number, start in enumerate(range(0, len(wanted), SHARD)):
        path = folder / f"{number:05d}.tar"
        if not path.exists():
            drawn = draw(
                pipeline,
                wanted[start : start + SHARD],
                steps=settings.steps,
                guidance=settings.guidance,
                identity_guidance=settings.identity_guidance,
                batch=settings.batch,
                progress=name,
            )
            write_shard(path, [(f"{start + i:08d}.png", png(image)) for i, image in enumerate(drawn)])
        yield read_shard(path)


def read_shard(path: Path) -> list[np.ndarray]:
    with tarfile.open(path) as tar:
        return [np.asarray(Image.open(io.BytesIO(tar.extractfile(member).read())).convert("RGB")) for member in tar]


def work_folder(params: Params, model: str, made: Path | None) -> Path:
    """Where the images of `model` are kept until all are there."""
    sections, table = (
        ("seed", "usage", "base", "model", "faces", "evaluate"),
        params.data_dir("curate") / "photos.parquet",
    )
    return resume.work_folder(params, f"evaluate-{model}", sections, [table, made], [__name__])


def open_model(params: Params, base: Base, stage: int | None) -> ImagineYourselfPipeline:
    """The pipeline of a stage's bundle, or of the base alone, on the one opened base."""
    if stage is None:  # a fresh adapter has no effect in parallel attention; concatenated, it would have
        return ImagineYourselfPipeline.from_base(base, params.model.model_copy(update={"attention": "parallel"}))
    model = bundle.load(params.bundle_dir(stage), base).requires_grad_(False).eval()
    return ImagineYourselfPipeline.build(model, base)
