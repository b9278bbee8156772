"""Imagine yourself: parallel attention over text and faces on a frozen U-Net, its bundle and its pipeline."""

from iy.model.personaliser import Personaliser
from iy.model.pipeline import ImagineYourselfPipeline

__all__ = ["ImagineYourselfPipeline", "Personaliser"]
