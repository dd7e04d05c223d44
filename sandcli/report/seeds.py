"""Agents over training seeds: mean, standard deviation, and intervals that hold both tasks and seeds."""

from collections.abc import Iterator, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sandcli.report.estimates import RESAMPLES, Difference, Estimate
from sandcli.report.scores import AgentRow, Suite, suites_of
from sandcli.report.sheets import Cell, Sheet, SheetRow
from sandcli.terminal import visible

NOTES = [
    "mean: over seeds and tasks, with a 95 % interval: bootstrap over seeds and tasks at the same time, "
    f"{RESAMPLES:,} resamples. Two or three seeds say little about others: the interval is then too narrow.",
    "sd: standard deviation of the seeds' averages. difference: from the reference, seed by seed and task by task.",
    "Only tasks that every seed was evaluated on, and only runs that differ in nothing but their seed.",
]


class SeededAgent(NamedTuple):
    """One agent that was trained with several seeds, on one test set. `rewards` x100: a row a seed, a column a task."""

    group: str
    label: str
    suite: Suite
    seeds: tuple[int, ...]
    tasks: tuple[str, ...]
    rewards: NDArray[np.float64]


def seeded_agents(rows: Sequence[AgentRow]) -> list[SeededAgent]:
    """The agents whose runs differ in nothing but their seed, in the order of their first rows."""
    return [_agent(found) for found in _trainings(rows) if not _obstacle(found)]


class _Trainings(NamedTuple):
    """The rows of one agent that was trained with several seeds, on one test set."""

    group: str
    label: str
    suite: Suite
    rows: list[AgentRow]


def _trainings(rows: Sequence[AgentRow]) -> list[_Trainings]:
    """Only agents that a run trained: the base model and other folders do not depend on the run's seed."""
    found: dict[tuple[str, str, Suite], list[AgentRow]] = {}
    for row in rows:
        for suite in suites_of([row]) if row.training else ():
            found.setdefault((row.group, row.name, suite), []).append(row)
    return [_Trainings(*key, own) for key, own in found.items() if len({row.seed for row in own}) > 1]


def _obstacle(found: _Trainings) -> str:
    """Why an agent has no average over its seeds; empty if it has one."""
    settings = [row.training.settings for row in found.rows if row.training]
    names = sorted({name for own in settings for name in own})
    if differ := [name for name in names if len({own.get(name) for own in settings}) > 1]:
        return f"{found.label} is left out: its runs do not differ in their seed only, but in {', '.join(differ)}."
    first: dict[int | None, AgentRow] = {}
    for row in found.rows:
        if first.setdefault(row.seed, row).scores[found.suite] != row.scores[found.suite]:
            runs = " and ".join(own.sources[found.suite.world][0] for own in (first[row.seed], row))
            return f"{found.label} is left out: there are two runs with the seed {row.seed}, {visible(runs)}."
    return ""


def _left_out(rows: Sequence[AgentRow]) -> Iterator[str]:
    yield from dict.fromkeys(why for found in _trainings(rows) if (why := _obstacle(found)))


def _agent(found: _Trainings) -> SeededAgent:
    by_seed = {row.training.seed: row for row in found.rows if row.training}
    seeds = tuple(sorted(by_seed))
    rewards = [{score.task: 100 * score.reward for score in by_seed[seed].scores[found.suite]} for seed in seeds]
    tasks = tuple(task for task in rewards[0] if all(task in own for own in rewards))
    matrix = np.array([[own[task] for task in tasks] for own in rewards])
    return SeededAgent(found.group, found.label, found.suite, seeds, tasks, matrix)


def over_seeds(rows: Sequence[AgentRow]) -> Sheet | None:
    """A row for every agent and test set with several seeds; notes say which are left out. None if there is none."""
    agents = [agent for agent in seeded_agents(rows) if agent.tasks]
    found = [SheetRow(agent.group, agent.label, _cells(agent, agents, rows)) for agent in agents]
    columns = ["test set", "seeds", "tasks", "mean", "sd", "difference", "reference"]
    title = "Average reward x100 over training seeds"
    notes = [*NOTES, *_left_out(rows)]
    return Sheet("seeds", title, "agent", columns, found, notes) if len(notes) > len(NOTES) or found else None


def _cells(agent: SeededAgent, agents: Sequence[SeededAgent], rows: Sequence[AgentRow]) -> list[Cell]:
    spread = stdev(agent.rewards.mean(axis=1).tolist())
    reference = _reference(agent, agents, rows)
    gain = paired(agent, reference) if reference else None
    against = reference.label if reference and gain else None
    size = (str(agent.suite), len(agent.seeds), len(agent.tasks))
    return [*size, estimate(agent.rewards), spread, gain, against]


def _reference(agent: SeededAgent, agents: Sequence[SeededAgent], rows: Sequence[AgentRow]) -> SeededAgent | None:
    """SFT with the same seeds."""
    names = {row.name for row in rows if row.kind == "sft" and row.group == agent.group}
    same = (other for other in agents if (other.group, other.suite) == (agent.group, agent.suite))
    return next((other for other in same if other.label in names and other is not agent), None)


def paired(agent: SeededAgent, reference: SeededAgent) -> Difference | None:
    """The mean difference over the seeds and tasks that both have; None if they share fewer than two seeds or no task.

    Both were trained with the same seed and, in an experiment, from the same SFT model.
    """
    seeds = [seed for seed in agent.seeds if seed in reference.seeds]
    tasks = [task for task in agent.tasks if task in reference.tasks]
    if len(seeds) < 2 or not tasks:
        return None
    found = estimate(_part(agent, seeds, tasks) - _part(reference, seeds, tasks))
    return Difference(*found, len(tasks))


def _part(agent: SeededAgent, seeds: list[int], tasks: list[str]) -> NDArray[np.float64]:
    rows, columns = [agent.seeds.index(seed) for seed in seeds], [agent.tasks.index(task) for task in tasks]
    return agent.rewards[np.ix_(rows, columns)]


def estimate(values: NDArray[np.float64]) -> Estimate:
    """The mean of a matrix of seeds and tasks, with an interval from resampling both its rows and its columns.

    The seeds were evaluated on the same tasks, so a resample takes the same tasks for each of its seeds.
    """
    rng = np.random.default_rng(0)
    seeds, tasks = values.shape
    resampled = [
        fmean(values[rng.integers(0, seeds, seeds)].mean(axis=0)[rng.integers(0, tasks, tasks)].tolist())
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Estimate(float(values.mean()), float(low), float(high))
