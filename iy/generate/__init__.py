"""Draw many cells (prompt, face, seed) through one pipeline."""

from iy.generate.batches import in_batches
from iy.generate.draw import Cell, draw, redraw

__all__ = ["Cell", "draw", "in_batches", "redraw"]
