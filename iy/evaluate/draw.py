"""The cells' images, shard by shard: an interrupted evaluation continues after its last shard."""

import io
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from iy import resume
from iy.diffusion import Base
from iy.evaluate.benchmark import Benchmark
from iy.faces import crop
from iy.generate import Cell, draw
from iy.model import ImagineYourselfPipeline, bundle
from iy.params import Params
from iy.seeds import cell_seed
from iy.storage import write_shard

SHARD = 256  # cells
Export = Callable[[np.ndarray], bytes]


def reference_crop(settings: Params, row: dict) -> np.ndarray:
    """The masked face crop of a PHOTO row, as the model was trained on: uint8 (S, S, 3)."""
    return crop.reference_crop(settings, settings.photos_dir, row)


def cells(benchmark: Benchmark, with_reference: bool) -> list[Cell]:
    """Every cell of the benchmark, for the base without a reference."""
    return [
        Cell(
            benchmark.prompts[one.prompt].text,
            benchmark.crops[one.subject] if with_reference else None,
            cell_seed(benchmark.settings.seed, benchmark.subjects[one.subject].person, one.prompt, one.number),
        )
        for one in benchmark.places
    ]


def images(
    settings: Params, pipeline: ImagineYourselfPipeline, wanted: Sequence[Cell], folder: Path, name: str, export: Export
) -> Iterator[list[np.ndarray]]:
    """uint8 images of `wanted`, SHARD at a time; drawn ones are kept as <folder>/<number>.tar and read from there.

    export: makes the PNG that is kept, of the same pixels.
    """
    section, how = settings.evaluate, settings.draw
    for number, start in enumerate(range(0, len(wanted), SHARD)):
        path = folder / f"{number:05d}.tar"
        if not path.exists():
            drawn = draw(
                pipeline,
                wanted[start : start + SHARD],
                steps=how.steps,
                guidance=how.guidance,
                identity_guidance=how.identity_guidance,
                batch=section.batch,
                progress=name,
            )
            write_shard(path, [(f"{start + i:08d}.png", export(image)) for i, image in enumerate(drawn)])
        yield read_shard(path)


def read_shard(path: Path) -> list[np.ndarray]:
    with tarfile.open(path) as tar:
        files = [file for member in tar if (file := tar.extractfile(member)) is not None]
        return [np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB")) for file in files]


def work_folder(settings: Params, model: str, made: Path | None) -> Path:
    """Where the images of `model` are kept until all are there."""
    sections, table = (
        ("seed", "usage", "base", "model", "faces", "draw", "provenance", "evaluate"),
        settings.data_dir("curate") / "photos.parquet",
    )
    return resume.work_folder(settings, f"evaluate-{model}", sections, [table, made], [__name__, "iy.evaluate.exports"])


def open_model(settings: Params, base: Base, folder: Path | None) -> ImagineYourselfPipeline:
    """The pipeline of a bundle, or of the base alone, on the one opened base."""
    if folder is None:  # a fresh adapter has no effect in parallel attention; concatenated, it would have
        return ImagineYourselfPipeline.from_base(base, settings.model.model_copy(update={"attention": "parallel"}))
    model = bundle.load(folder, base).requires_grad_(False).eval()
    return ImagineYourselfPipeline.build(model, base)
