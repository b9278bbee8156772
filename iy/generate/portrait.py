"""One photograph and a prompt to pictures on disk: what `iy generate` does."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from iy import params
from iy.device import choose_device
from iy.diffusion import load_base
from iy.errors import UserError
from iy.faces import load_analyser
from iy.faces.weights import Usage
from iy.generate.draw import Cell, draw
from iy.generate.reference import one_face, read_file, read_photo
from iy.model import ImagineYourselfPipeline
from iy.model.bundle import load, locate, read_config
from iy.pictures import Limits
from iy.storage import png, write_bytes

AT_ONCE = 8  # pictures, at most


def even(count: int) -> int:
    """How many of `count` pictures are drawn at once: batches are filled up, so the last one's gaps would cost."""
    return -(-count // max(1, -(-count // AT_ONCE)))


class Portraitist:
    """A bundle with the face analyser that its references need. Draws the person of a photograph.

    beside: another one that is open, whose analyser is shared, and whose base where both bundles stand on the same.
    """

    def __init__(
        self,
        bundle: Path,
        faces: params.Faces,
        usage: Usage,
        limits: Limits,
        device: str,
        beside: "Portraitist | None" = None,
    ) -> None:
        config = read_config(bundle)
        self.model, self.size = config["model"], config["base"].image_size
        self.limits = limits
        self.analyser = load_analyser(faces, usage, device) if beside is None else beside.analyser
        needed = locate(config["base"], bundle)
        if beside is not None and beside.base.settings == needed:
            self.base = beside.base
        else:
            self.base = load_base(needed, choose_device(device))
        personal = load(bundle, self.base).requires_grad_(False).eval()
        self.pipeline = ImagineYourselfPipeline.build(personal, self.base)

    def reference(self, photo: bytes, name: str) -> np.ndarray:
        """The masked face crop of a photograph's bytes; `name` stands for it in messages."""
        return one_face(read_photo(photo, name, self.limits), name, self.analyser, self.model, self.size)

    def draw(
        self,
        crops: list[np.ndarray | None],
        prompts: list[str],
        seeds: list[int],
        steps: int,
        guidance: float,
        identity_guidance: float,
    ) -> list[np.ndarray]:
        """One uint8 (H, W, 3) picture per crop (None: nobody in particular), prompt and seed."""
        cells = [Cell(*cell) for cell in zip(prompts, crops, seeds, strict=True)]
        return draw(
            self.pipeline,
            cells,
            steps=steps,
            guidance=guidance,
            identity_guidance=identity_guidance,
            batch=even(len(cells)),
        )

    def export(self, image: np.ndarray) -> bytes:
        """A drawn picture, uint8 (H, W, 3), as the bytes of the PNG that leaves: the one way out for all of them."""
        return png(image)


def draw_files(
    bundle: Path, settings: params.Params, photo: Path, prompt: str, seeds: Iterable[int], out: Path
) -> Iterator[Path]:
    """Draw a PNG per seed: `out`, or `out` with numbers before its suffix when there are several. Yields the paths."""
    data, limits = read_file(photo), Limits(settings.photos.maximum_pixels, settings.photos.maximum_side)
    seeds, draws = list(seeds), settings.draw
    artist = Portraitist(bundle, settings.faces, settings.usage, limits, settings.device)
    crop = artist.reference(data, str(photo))
    images = artist.draw(
        [crop] * len(seeds), [prompt] * len(seeds), seeds, draws.steps, draws.guidance, draws.identity_guidance
    )
    for number, image in enumerate(images, 1):
        path = out if len(seeds) == 1 else out.with_name(f"{out.stem}-{number}{out.suffix or '.png'}")
        try:
            write_bytes(path, artist.export(image))
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}") from None
        yield path
