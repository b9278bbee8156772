"""`python -m iy.photos`: photos of the configured source into shards and a table (about a minute for 640 portraits)."""

from iy.stage import main

if __name__ == "__main__":
    main("photos")
