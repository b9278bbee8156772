"""iy: from a folder of portraits to a tuning-free personalised image generator."""

__version__ = "0.1.0"  # said here, for a registered model carries the code without its metadata
