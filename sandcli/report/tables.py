"""The numbers of the paper's tables from evaluated episodes. (Table 2: reward. Table 4: tokens. Figure 3: per step.)"""

import math
import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.table import Table

from sandcli.records import Episode

_RESAMPLES = 2000


class Estimate(NamedTuple):
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


class Row(NamedTuple):
    """One model on one split. Rates are averaged over tasks; `tokens` are generated tokens a task."""

    model: str
    split: str
    tasks: int
    reward: Estimate
    success: Estimate
    reward_per_step: float
    deliberation_rate: float
    tokens: float


def summarise(episodes: Iterable[Episode]) -> list[Row]:
    """One row for every model and split, in order of appearance."""
    groups: dict[tuple[str, str], list[Episode]] = {}
    for episode in episodes:
        groups.setdefault((episode.model, episode.split), []).append(episode)
    return [_row(model, split, group) for (model, split), group in groups.items()]


def _row(model: str, split: str, group: Sequence[Episode]) -> Row:
    return Row(
        model=model,
        split=split,
        tasks=len(group),
        reward=bootstrap([episode.reward for episode in group]),
        success=wilson(sum(episode.success for episode in group), len(group)),
        reward_per_step=_mean([episode.reward / max(1, len(episode.steps)) for episode in group]),
        deliberation_rate=_mean([episode.deliberated / max(1, len(episode.steps)) for episode in group]),
        tokens=_mean([episode.tokens for episode in group]),
    )


def bootstrap(values: Sequence[float]) -> Estimate:
    """The mean with a percentile bootstrap interval; the resampling is seeded."""
    rng = random.Random(0)
    means = sorted(_mean(rng.choices(values, k=len(values))) for _ in range(_RESAMPLES))
    return Estimate(_mean(values), means[int(0.025 * _RESAMPLES)], means[int(0.975 * _RESAMPLES)])


def wilson(successes: int, tasks: int) -> Estimate:
    """A success rate with Wilson's score interval, which holds for few tasks and for rates of 0 and 1."""
    z = 1.959964
    rate = successes / tasks
    centre = (rate + z * z / (2 * tasks)) / (1 + z * z / tasks)
    half = z * math.sqrt(rate * (1 - rate) / tasks + z * z / (4 * tasks * tasks)) / (1 + z * z / tasks)
    return Estimate(rate, max(0.0, centre - half), min(1.0, centre + half))


def table(rows: Iterable[Row]) -> Table:
    """The rows as a terminal table."""
    drawn = Table(title="average over tasks, 95 % intervals")
    drawn.add_column("model")
    drawn.add_column("split")
    for heading in ("tasks", "reward x100", "success %", "reward/step", "deliberation", "tokens/task"):
        drawn.add_column(heading, justify="right")
    for row in rows:
        drawn.add_row(
            row.model,
            row.split,
            str(row.tasks),
            str(row.reward),
            str(row.success),
            f"{row.reward_per_step:.3f}",
            f"{row.deliberation_rate:.2f}",
            f"{row.tokens:.0f}",
        )
    return drawn


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
