"""Difficulty bands: the tertiles of the base model's reward on the same tasks. (Figure 4)"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from sandcli.report.scores import Row, Score, by_group, worlds_of

Band = Literal["hard", "medium", "easy"]
BANDS: tuple[Band, ...] = ("hard", "medium", "easy")


class Limits(NamedTuple):
    """Rewards up to `hard` make a task hard, rewards above `medium` make it easy."""

    hard: float
    medium: float

    def band(self, reward: float) -> Band:
        """The band of a task, by the base model's reward on it."""
        if reward <= self.hard:
            return "hard"
        return "medium" if reward <= self.medium else "easy"


class Banded(NamedTuple):
    """A row's scores on one world by difficulty; `limits` are those of the world."""

    row: Row
    world: str
    limits: Limits
    scores: Mapping[Band, list[Score]]


def limits_of(rewards: Sequence[float]) -> Limits:
    """The tertiles. They are rewards that occur, so that equal rewards never fall into different bands.

    A tertile that is the highest reward of all steps down to the next: what the base model does best is easy.
    """
    ordered, distinct = sorted(rewards), sorted(set(rewards))
    tertiles = (ordered[-(-part * len(ordered) // 3) - 1] for part in (1, 2))
    below = distinct[max(0, len(distinct) - 2)]
    return Limits(*(min(tertile, below) for tertile in tertiles))


def banded(rows: Sequence[Row]) -> list[Banded]:
    """Every row on every world that its group's base model was evaluated on; the first one, if there are more.

    Where that one earned the same on every task, none is harder than another, and there are no bands.
    """
    found = []
    for members in by_group(rows).values():
        for world in worlds_of(members):
            base = next((row for row in members if row.kind == "base" and row.held_out(world)), None)
            if base is not None and len({score.reward for score in base.held_out(world)}) > 1:
                found += [_banded(row, world, base) for row in members if row.held_out(world)]
    return found


def _banded(row: Row, world: str, base: Row) -> Banded:
    rewards = {(score.split, score.task): score.reward for score in base.held_out(world)}
    limits = limits_of(list(rewards.values()))
    scores: dict[Band, list[Score]] = {band: [] for band in BANDS}
    for score in row.held_out(world):
        reward = rewards.get((score.split, score.task))
        if reward is not None:
            scores[limits.band(reward)].append(score)
    return Banded(row, world, limits, scores)
