"""Imagine yourself: parallel attention over text and faces on a frozen U-Net, its bundle and its pipeline."""
from iy.model.personaliser import Personaliser

__all__ = ["Personaliser"]
