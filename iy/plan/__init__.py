"""`iy plan`: hours, disk and memory of every stage for so many photos, before the run; from counts and measured rates."""
