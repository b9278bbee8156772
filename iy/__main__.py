"""`python -m iy` is the `iy` command."""

from iy.cli import main

if __name__ == "__main__":
    main()
