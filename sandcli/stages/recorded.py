"""Turns recorded rows into trajectories to make: each with its task, or with the reason why it cannot be used."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from sandcli.agent.turns import normalise
from sandcli.envs.base import World
from sandcli.errors import UsageError
from sandcli.importers.conversations import RecordedTrajectory, UnusableRow, read_row, read_trajectory
from sandcli.importers.rows import Row
from sandcli.records import Task


class Wanted(NamedTuple):
    """A trajectory to make: from a recorded row, or from the world's own expert if there is none.

    A row that cannot be used has no task, and `why` says why, as `kind: detail`.
    """

    task: Task | None
    row: RecordedTrajectory | None = None
    why: str = ""


def wanted_rows(world: World, source: Path, rows: Iterable[Row]) -> dict[str, Wanted]:
    """The rows by their ids; unusable ones also by their place. Raises `UsageError` if none is usable."""
    wanted: dict[str, Wanted] = {}
    for row in rows:
        name, unit = _wanted(world, row)
        if name in wanted:
            unit = Wanted(None, why="an id occurs twice")
        wanted[name if unit.task else ", ".join(filter(None, (name, row.where)))] = unit
    if all(unit.task is None for unit in wanted.values()):
        first = next(f"{name!r}: {unit.why}" for name, unit in wanted.items())
        raise UsageError(
            f"{source}: none of its {len(wanted)} rows can be used; {first}",
            f"choose trajectories of {world.name}, or set env.name and env.games to the data's world",
        )
    return wanted


def _wanted(world: World, row: Row) -> tuple[str, Wanted]:
    """The name of a row, and the trajectory to make from it."""
    name = ""
    try:
        found = read_row(row.content)
        name = found.name
        recorded = read_trajectory(found)
        task = _task(world, recorded.task)
        return name, Wanted(task, _in_game_grammar(world, task, recorded))
    except UnusableRow as error:
        return name, Wanted(None, why=str(error))


def _task(world: World, name: str) -> Task:
    try:
        return world.task_of(name)
    except UsageError as error:
        raise UnusableRow(f"no such task or game here: {error.what}; {error.fix}") from None


def _in_game_grammar(world: World, task: Task, row: RecordedTrajectory) -> RecordedTrajectory:
    """The row in the grammar that its task is played in, with actions in the form in which the agent's are executed."""
    try:
        actions, seen = world.to_game_grammar(task, [turn.action for turn in row.turns], row.observations)
    except UsageError as error:
        raise UnusableRow(f"not in the game's grammar: {error.what}; {error.fix}") from None
    turns = [turn._replace(action=normalise(action)) for turn, action in zip(row.turns, actions, strict=True)]
    return row._replace(turns=turns, observations=seen)
