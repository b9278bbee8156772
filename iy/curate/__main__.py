"""`python -m iy.curate`: photos into a curated collection (640 photos of 128 px: about 15 s on two cores)."""

from iy.stage import main

if __name__ == "__main__":
    main("curate")
