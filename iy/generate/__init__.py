"""Draw many cells (prompt, face, seed) through one pipeline."""
from iy.generate.draw import Cell, draw, redraw

__all__ = ["Cell", "draw", "redraw"]
