"""Benchmarks: ours beside what a user would otherwise run, in turns in one process; medians and ratios as JSON."""
