"""`python -m iy.evaluate`: base and stages 1 to 4 on held-out people (the studio's: 3 to 4 CPU minutes)."""

from iy.stage import main

if __name__ == "__main__":
    main("evaluate")
