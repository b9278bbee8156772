"""iy: from a folder of portraits to a tuning-free personalised image generator."""
