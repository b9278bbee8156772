"""Intervals that know that images of one person are not independent: people are drawn again, never single images.

A measure is given as one array per person, (C,) or (C, K): C images of that person, K numbers of each.
"""

from collections.abc import Callable, Sequence

import numpy as np

Estimate = dict[str, float | int]
LOW, HIGH = 2.5, 97.5  # percentiles of the 95 % interval


def mean(values: np.ndarray) -> float:
    return float(np.mean(values))


def estimate(
    groups: Sequence[np.ndarray], rounds: int, seed: int, statistic: Callable[[np.ndarray], float] = mean
) -> Estimate:
    """value, 95 % percentile interval (Efron 1979, people as the unit) and number of images, six digits kept.

    groups: the measure of each person; `statistic` takes all images' values, people joined.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(groups), size=(rounds, len(groups)))
    if statistic is mean:  # the same, without joining arrays a thousand times
        sums, counts = np.array([group.sum() for group in groups]), np.array([len(group) for group in groups])
        spread = sums[drawn].sum(1) / counts[drawn].sum(1)
    else:
        spread = np.array([statistic(np.concatenate([groups[i] for i in row])) for row in drawn])
    everything = np.concatenate(list(groups))
    low, high = np.percentile(spread, [LOW, HIGH])
    return {
        "value": round(statistic(everything), 6),
        "low": round(float(low), 6),
        "high": round(float(high), 6),
        "n": len(everything),
    }


def correlation(pairs: np.ndarray) -> float:
    """Pearson's r of pairs (N, 2); 0 where one of them does not vary, since nothing then follows the other."""
    x, y = (pairs - pairs.mean(0)).T
    scale = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / scale) if scale > 1e-12 else 0.0
