"""Do agents deliberate more on harder tasks? A trend test over tasks. (Figure 4)"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sandcli.report.bands import BandedScores

PERMUTATIONS = 9_999
_CHUNK = 2**20
"""Numbers held in memory at once."""


class Trend(NamedTuple):
    """Spearman's rank correlation, its two-sided permutation p-value, and the number of tasks."""

    rho: float
    p: float
    tasks: int


def trend(one: Sequence[float], other: Sequence[float]) -> Trend | None:
    """The rank correlation of two numbers a task; None if all values of one of them are equal.

    Equal values share their mean rank. The permutations have a fixed seed.
    """
    ranks = [_centred_ranks(np.asarray(values, dtype=float)) for values in (one, other)]
    size = float(np.sqrt(np.prod([(own**2).sum() for own in ranks])))
    if not size:
        return None
    first, second = ranks
    rho = float(first @ second) / size
    as_far = sum(int((np.abs(drawn @ first / size) >= abs(rho) - 1e-9).sum()) for drawn in _permuted(second))
    return Trend(rho, (1 + as_far) / (1 + PERMUTATIONS), len(first))


def _centred_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks minus their mean."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[group]
    return np.asarray(ranks - (len(values) + 1) / 2, dtype=float)


def _permuted(values: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """The values in random orders, one a line, some lines at a time."""
    rng = np.random.default_rng(0)
    at_once = max(1, _CHUNK // len(values))
    for done in range(0, PERMUTATIONS, at_once):
        lines = min(at_once, PERMUTATIONS - done)
        yield rng.permuted(np.tile(values, (lines, 1)), axis=1)


def trend_notes(parts: Sequence[BandedScores]) -> list[str]:
    """What is tested, then the trend of every agent on every test set; empty if there is none."""
    found = [
        f"{part.row.group}, {part.suite}, {part.row.label}: rho {made.rho:+.2f}, p {made.p:.4f}, n = {made.tasks}."
        for part in parts
        if (made := _trend(part))
    ]
    what = (
        "Trend: Spearman's rho between the base model's reward on a task and the agent's deliberation rate there "
        f"(negative: it deliberates more on harder tasks), with the two-sided p-value of {PERMUTATIONS:,} permutations "
        "of the tasks. Not given where every task has the same rate."
    )
    return [what, *found] if found else []


def _trend(part: BandedScores) -> Trend | None:
    scores = [score for own in part.scores.values() for score in own]
    return trend([part.rewards[score.task] for score in scores], [score.deliberation_rate for score in scores])
