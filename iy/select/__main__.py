"""`python -m iy.select`: choose the photos of stage 3 and the pairs of stage 4 (seconds)."""

from iy.stage import main

if __name__ == "__main__":
    main("select")
