"""`iy plan`: hours, disk and memory of every stage for so many photos beforehand, from counts and measured rates."""
