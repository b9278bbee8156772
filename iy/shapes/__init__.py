"""The full-size models without their weights: what a profile's parts weigh, compute and hold, read off shapes alone."""
