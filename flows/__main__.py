"""`python -m flows OPTIONS` is `iy run OPTIONS`."""

import sys

from iy.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
