"""Where a photo went, and taking it out of everything again: `iy trace`, `iy erase`."""
