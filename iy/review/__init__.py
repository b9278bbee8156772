"""People choose the photos and pairs of stages 3 and 4: a page on this machine, a log that loses nothing."""
