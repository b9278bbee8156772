"""`python -m iy.faces.weights`: fetch what is missing; a second when everything is there."""

import sys

from iy.errors import UserError
from iy.faces.weights import WEIGHTS, fetch, path

if __name__ == "__main__":
    try:
        fetch(list(WEIGHTS))
        for name in WEIGHTS:
            path(name)
    except UserError as error:
        sys.exit(f"error: {error}")
    print(f"face weights: all {len(WEIGHTS)} present and checked")
