"""One photograph and a prompt to pictures on disk: what `iy generate` does."""

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from iy import params
from iy.device import choose_device
from iy.diffusion import load_base
from iy.errors import UserError
from iy.faces import load_analyser
from iy.faces.weights import Usage
from iy.generate.draw import Cell, draw
from iy.generate.reference import admitted, read_file
from iy.model import ImagineYourselfPipeline
from iy.model.bundle import load, locate, read_config
from iy.pictures import Limits
from iy.policy.rule import Rules, current, open_policy, rules
from iy.provenance.mark import Drawer, clock, open_marker
from iy.storage import folder_sha256, write_bytes

VERSION = 16  # hex digits of a bundle's hash, which the registry has in full as `iy.bundle`
AT_ONCE = 8  # pictures, at most


class Terms(NamedTuple):
    """On what terms a bundle draws. name, version: what pictures say of who drew them; None: computed of the bundle."""

    faces: params.Faces
    usage: Usage
    limits: Limits
    device: str
    provenance: params.Provenance
    policy: Rules
    name: str
    version: str | None = None

    @classmethod
    def of(cls, settings: params.Params) -> "Terms":
        limits = Limits(settings.photos.maximum_pixels, settings.photos.maximum_side)
        place = settings.faces, settings.usage, limits, settings.device
        return cls(*place, settings.provenance, rules(settings), model_name(settings))

    def drawer(self, bundle: Path) -> Drawer:
        """A bundle in a registered model is called as the registry calls it, whoever opens it."""
        return registered(bundle) or Drawer(self.name, self.version or version(bundle))


def model_name(settings: params.Params) -> str:
    """What pictures call the profile's model."""
    return f"iy-{settings.profile}"


def registered(bundle: Path) -> Drawer | None:
    """What the package around a bundle says of it (`iy.register.package`); None where there is none."""
    try:
        said = json.loads((bundle.parent / "settings.json").read_text(encoding="utf-8"))["model"]
        return Drawer(str(said["name"]), str(said["version"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def version(bundle: Path) -> str:
    """Of a bundle's weights and configuration. Seconds where they are large."""
    return folder_sha256(bundle)[:VERSION]


def even(count: int) -> int:
    """How many of `count` pictures are drawn at once: batches are filled up, so the last one's gaps would cost."""
    return -(-count // max(1, -(-count // AT_ONCE)))


class Portraitist:
    """A bundle with the face analyser that its references need. Draws the person of a photograph.

    Somebody's face comes in by `reference` and pictures leave by `export`, whoever draws between.

    beside: another one that is open, whose analyser is shared, and whose base where both bundles stand on the same.
    """

    def __init__(self, bundle: Path, terms: Terms, beside: "Portraitist | None" = None) -> None:
        config = read_config(bundle)
        self.model, self.size = config["model"], config["base"].image_size
        self.limits = terms.limits
        self.analyser = beside.analyser if beside else load_analyser(terms.faces, terms.usage, terms.device)
        self.policy = open_policy(terms.policy, self.analyser)
        self.marker = open_marker(terms.provenance, lambda: terms.drawer(bundle), terms.device)
        needed = locate(config["base"], bundle)
        same = beside is not None and beside.base.settings == needed
        self.base = beside.base if beside and same else load_base(needed, choose_device(terms.device))
        personal = load(bundle, self.base).requires_grad_(False).eval()
        self.pipeline = ImagineYourselfPipeline.build(personal, self.base)

    def reference(self, photo: bytes, name: str) -> np.ndarray:
        """The masked face crop of a photograph's bytes, if its person may be drawn; `name` is for messages."""
        self.policy = current(self.policy, self.analyser)
        return admitted(photo, name, self.limits, self.analyser, self.model, self.size, self.policy)

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

    def export(self, image: np.ndarray, prompt: str | None = None, when: datetime | None = None) -> bytes:
        """A drawn picture, uint8 (H, W, 3), as the bytes of the PNG that leaves, marked as drawn by this model.

        prompt: said where provenance.prompt asks for it; when: it was drawn, now where None.
        """
        return self.marker.png(image, when or clock(), prompt)


def open_artist(bundle: Path, settings: params.Params, beside: Portraitist | None = None) -> Portraitist:
    """The bundle, ready to draw on the settings' terms. beside: see `Portraitist`."""
    return Portraitist(bundle, Terms.of(settings), beside)


def draw_files(
    bundle: Path, settings: params.Params, photo: Path, prompt: str, seeds: Iterable[int], out: Path
) -> Iterator[Path]:
    """Draw a PNG per seed: `out`, or `out` with numbers before its suffix when there are several. Yields the paths."""
    data = read_file(photo)
    seeds, draws = list(seeds), settings.draw
    artist = open_artist(bundle, settings)
    crop = artist.reference(data, str(photo))
    images = artist.draw(
        [crop] * len(seeds), [prompt] * len(seeds), seeds, draws.steps, draws.guidance, draws.identity_guidance
    )
    for number, image in enumerate(images, 1):
        path = out if len(seeds) == 1 else out.with_name(f"{out.stem}-{number}{out.suffix or '.png'}")
        try:
            write_bytes(path, artist.export(image, prompt))
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}") from None
        yield path
