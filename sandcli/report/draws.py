"""Tasks that an agent played several times: one score for each task, and pass@k."""

from collections.abc import Iterable, Sequence
from math import comb
from statistics import fmean

from sandcli.report.estimates import bootstrap
from sandcli.report.scores import AgentRow, Decisions, Score, suites_of
from sandcli.report.sheets import Cell, Sheet, SheetRow
from sandcli.report.tables import INTERVALS


def one_a_task(scores: Iterable[Score]) -> list[Score]:
    """One score for each task of each split: its episodes' average, and all their decisions."""
    by_task: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        by_task.setdefault((score.split, score.task), []).append(score)
    return [_averaged(draws) for draws in by_task.values()]


def _averaged(draws: Sequence[Score]) -> Score:
    if len(draws) == 1:
        return draws[0]
    return draws[0]._replace(
        reward=fmean(draw.reward for draw in draws),
        success=fmean(draw.success for draw in draws),
        done=fmean(draw.done for draw in draws),
        steps=fmean(draw.steps for draw in draws),
        deliberated=fmean(draw.deliberated for draw in draws),
        tokens=fmean(draw.tokens for draw in draws),
        decisions=Decisions(*(sum(column) for column in zip(*(draw.decisions for draw in draws), strict=True))),
        draws=tuple(draws),
    )


def pass_at(k: int, episodes: int, successes: int) -> float:
    """The probability that one of k episodes of a task succeeds, estimated without bias from at least k episodes."""
    return 1 - comb(episodes - successes, k) / comb(episodes, k)


def passes(rows: Sequence[AgentRow]) -> Sheet | None:
    """pass@k of every agent. None if no agent played a task several times."""
    most = max((_episodes(row.scores[suite]) for row in rows for suite in row.scores), default=1)
    if most == 1:
        return None
    sizes = _sizes(most)
    found = [
        SheetRow(row.group, row.label, [str(suite), len(scores), _episodes(scores), *_cells(scores, sizes)])
        for row in rows
        for suite in suites_of([row])
        if (scores := row.scores[suite])
    ]
    notes = [
        "The share of tasks, in %, of which at least one of k episodes earns the full reward: the unbiased estimate "
        "1 - C(n - c, k) / C(n, k) from n episodes of a task with c successes, averaged over tasks. episodes: the n "
        "that every task has at least. Other tables average over the episodes of a task first.",
        INTERVALS,
    ]
    columns = ["test set", "tasks", "episodes", *(f"pass@{k}" for k in sizes)]
    return Sheet("passes", "Success within k episodes, %", "agent", columns, found, notes)


def _sizes(most: int) -> list[int]:
    """1, 2, 4 and so on, and the largest."""
    return sorted({most, *(2**power for power in range(most.bit_length()))})


def _episodes(scores: Sequence[Score]) -> int:
    """How many episodes every task has at least."""
    return min((len(score.episodes) for score in scores), default=1)


def _cells(scores: Sequence[Score], sizes: Sequence[int]) -> list[Cell]:
    return [_pass(scores, k) if k <= _episodes(scores) else None for k in sizes]


def _pass(scores: Sequence[Score], k: int) -> Cell:
    shares = [pass_at(k, len(own), sum(draw.success >= 1 for draw in own)) for own in (s.episodes for s in scores)]
    return bootstrap(shares).times(100)
