"""Difficulty bands: the tertiles of the base model's reward on the same tasks. (Figure 4)"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from sandcli.report.scores import AgentRow, Score, by_group, worlds_of

Band = Literal["hard", "medium", "easy"]
BANDS: tuple[Band, ...] = ("hard", "medium", "easy")


class BandLimits(NamedTuple):
    """The base model's rewards that separate the bands: up to `hard` a task is hard, above `medium` it is easy."""

    hard: float
    medium: float

    def band(self, reward: float) -> Band:
        """The band of a task with this reward of the base model."""
        if reward <= self.hard:
            return "hard"
        return "medium" if reward <= self.medium else "easy"


class BandedScores(NamedTuple):
    """An agent's scores on one world by difficulty band."""

    row: AgentRow
    world: str
    limits: BandLimits
    scores: Mapping[Band, list[Score]]


def band_limits(rewards: Sequence[float]) -> BandLimits:
    """The tertiles, chosen among the rewards that occur, so that equal rewards are in the same band.

    A tertile that equals the highest reward is lowered to the next one, so that the base model's best tasks are easy.
    """
    ordered, distinct = sorted(rewards), sorted(set(rewards))
    found = (ordered[-(-part * len(ordered) // 3) - 1] for part in (1, 2))
    second = distinct[max(0, len(distinct) - 2)]
    return BandLimits(*(min(tertile, second) for tertile in found))


def banded_scores(rows: Sequence[AgentRow]) -> list[BandedScores]:
    """The scores of every row, by band, on every world that its base model was evaluated on.

    If a group has several rows of its base model, the first one counts. If the base model earned the same reward on
    every task, no task is harder than another: the world has no bands.
    """
    found = []
    for members in by_group(rows).values():
        for world in worlds_of(members):
            base = next((row for row in members if row.kind == "base" and row.held_out(world)), None)
            if base is not None and len({score.reward for score in base.held_out(world)}) > 1:
                found += [_banded(row, world, base) for row in members if row.held_out(world)]
    return found


def _banded(row: AgentRow, world: str, base: AgentRow) -> BandedScores:
    rewards = {(score.split, score.task): score.reward for score in base.held_out(world)}
    limits = band_limits(list(rewards.values()))
    scores: dict[Band, list[Score]] = {band: [] for band in BANDS}
    for score in row.held_out(world):
        reward = rewards.get((score.split, score.task))
        if reward is not None:
            scores[limits.band(reward)].append(score)
    return BandedScores(row, world, limits, scores)
