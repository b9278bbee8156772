"""A watermark in the pixels, which no eye sees and which stays when metadata is stripped: TrustMark (arXiv 2311.18297).

By name only: the package `trustmark` (MIT) fetches its weights at its first use, which iy never lets it do. Where they
lie in it already, pictures are watermarked; where not, the reason is told and pictures are signed only.
"""

import contextlib
import io
import logging
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from iy.params import Provenance

log = logging.getLogger(__name__)
KIND = "Q"  # its authors' balance of quality and robustness
FILES = ("trustmark_{}.yaml", "encoder_{}.ckpt", "decoder_{}.ckpt", "trustmark_rm_{}.yaml", "trustmark_rm_{}.ckpt")
WORD = "iy-drawn"  # as many letters as fit beside the error correction


class Watermark:
    """Puts and finds the word."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def put(self, image: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3), watermarked."""
        return np.asarray(self.model.encode(Image.fromarray(image), WORD).convert("RGB"))

    def found(self, image: np.ndarray) -> bool:
        word, present, _ = self.model.decode(Image.fromarray(image))
        return bool(present) and word == WORD


def open_watermark(settings: Provenance, device: str) -> Watermark | None:
    """None where it is off or cannot be had; which of them, and why, is logged."""
    reason = why_not(settings)
    if reason is not None:
        log.info("pictures get no watermark: %s", reason)
        return None
    return opened("" if device == "auto" else device)


def why_not(settings: Provenance) -> str | None:
    """Why pictures get no watermark; None where they do."""
    return "provenance.watermark is off" if settings.watermark == "off" else missing()


def missing() -> str | None:
    """Why there can be no watermark; None where there can."""
    found = find_spec("trustmark")
    if found is None or found.origin is None:
        return "the package trustmark is not installed"
    folder = Path(found.origin).parent / "models"
    absent = [name for name in (file.format(KIND) for file in FILES) if not (folder / name).is_file()]
    return f"trustmark's weights are not here ({folder / absent[0]})" if absent else None


@cache
def opened(device: str) -> Watermark:
    model = import_module("trustmark").TrustMark  # by name: it wants packages that iy does without
    with contextlib.redirect_stdout(io.StringIO()):
        return Watermark(model(verbose=False, model_type=KIND, device=device))
