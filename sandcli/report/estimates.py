"""Means with 95 % intervals. Tasks are resampled with fixed seeds, so a report is reproducible."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
_CHUNK = 2**20
"""Random numbers held in memory at once."""


class Estimate(NamedTuple):
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float

    def times(self, factor: float) -> "Estimate":
        """The estimate in another unit, such as per cent."""
        return Estimate(self.mean * factor, self.low * factor, self.high * factor)


class Difference(NamedTuple):
    """A mean difference, its 95 % interval, and the number of tasks."""

    mean: float
    low: float
    high: float
    tasks: int


def bootstrap(*groups: Sequence[float]) -> Estimate:
    """The mean of the groups' means, with its percentile bootstrap interval."""
    mean = float(np.mean([np.mean(group) for group in groups]))
    resampled = np.mean([_means(np.asarray(group, dtype=float), seed) for seed, group in enumerate(groups)], axis=0)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Estimate(mean, float(low), float(high))


def _means(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    size = len(values)
    at_once = max(1, _CHUNK // size)
    chunks = [
        values[rng.integers(0, size, (min(at_once, RESAMPLES - done), size), dtype=np.int32)].mean(axis=1)
        for done in range(0, RESAMPLES, at_once)
    ]
    return np.concatenate(chunks)


def share(counts: Sequence[tuple[int, int]]) -> Estimate:
    """Hits / trials over all clusters, such as tasks, with the percentile bootstrap interval over clusters.

    Each cluster gives its (hits, trials), with at least one trial. Trials of one cluster may depend on each other.
    """
    hits, trials = (np.asarray(column, dtype=float) for column in zip(*counts, strict=True))
    resampled = _means(hits, 0) / _means(trials, 0)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Estimate(float(hits.sum() / trials.sum()), float(low), float(high))


def wilson(successes: float, tasks: int) -> Estimate:
    """A success rate with Wilson's score interval, which also works for few tasks and for rates of 0 and 1.

    If tasks count with the share of their episodes that succeeded, the interval is wider than it need be.
    """
    z = 1.959964
    rate = successes / tasks
    centre = (rate + z * z / (2 * tasks)) / (1 + z * z / tasks)
    half = z * math.sqrt(rate * (1 - rate) / tasks + z * z / (4 * tasks * tasks)) / (1 + z * z / tasks)
    return Estimate(rate, max(0.0, centre - half), min(1.0, centre + half))
