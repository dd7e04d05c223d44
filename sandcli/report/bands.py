"""Difficulty bands: the tertiles of the base model's reward on the same tasks. (Figure 4)"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from sandcli.report.scores import AgentRow, Score, Suite, by_group, held_out, suites_of

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
    """An agent's scores on one test set by difficulty band. `rewards` are the base model's, by task."""

    row: AgentRow
    suite: Suite
    limits: BandLimits
    scores: Mapping[Band, list[Score]]
    rewards: Mapping[str, float]


def band_limits(rewards: Sequence[float]) -> BandLimits:
    """The tertiles, chosen among the rewards that occur, so that equal rewards are in the same band.

    A tertile that equals the highest reward is lowered to the next one, so that the base model's best tasks are easy.
    """
    ordered, distinct = sorted(rewards), sorted(set(rewards))
    found = (ordered[-(-part * len(ordered) // 3) - 1] for part in (1, 2))
    second = distinct[max(0, len(distinct) - 2)]
    return BandLimits(*(min(tertile, second) for tertile in found))


def banded_scores(rows: Sequence[AgentRow]) -> list[BandedScores]:
    """The scores of every row, by band, on every test set that its base model was evaluated on.

    If a group has several rows of its base model, the first one counts. If the base model earned the same reward on
    every task, no task is harder than another: the test set has no bands.
    """
    found = []
    for members in by_group(rows).values():
        for suite in held_out(members):
            base = next((row.scores[suite] for row in members if row.kind == "base" and suite in row.scores), [])
            rewards = {score.task: score.reward for score in base}
            if len(set(rewards.values())) > 1:
                found += [_banded(row, suite, rewards) for row in members if suite in row.scores]
    return found


def parts_of(rows: Sequence[AgentRow]) -> dict[tuple[str, str, Suite], dict[str, list[Score]]]:
    """All scores of an agent on a test set, and those of each difficulty band, by base model, label and test set."""
    parts = {
        (row.group, row.label, suite): {"all": list(row.scores[suite])} for row in rows for suite in suites_of([row])
    }
    for row, suite, _, scores, _ in banded_scores(rows):
        parts[row.group, row.label, suite] |= {str(band): own for band, own in scores.items()}
    return parts


def _banded(row: AgentRow, suite: Suite, rewards: Mapping[str, float]) -> BandedScores:
    limits = band_limits(list(rewards.values()))
    scores: dict[Band, list[Score]] = {band: [] for band in BANDS}
    for score in row.scores[suite]:
        if score.task in rewards:
            scores[limits.band(rewards[score.task])].append(score)
    return BandedScores(row, suite, limits, scores, rewards)
