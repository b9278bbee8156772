"""`python -m iy.synpairs`: synthetic pairs of the training people (some 200 of the studio's: 2 to 4 CPU minutes)."""

from iy.stage import main

if __name__ == "__main__":
    main("synpairs")
