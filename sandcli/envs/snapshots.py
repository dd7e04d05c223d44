"""Episodes kept in the states they were restored to, so that the next branch from there need not replay its prefix."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from sandcli.envs.base import Environment, Outcome
from sandcli.records import Task

_TASKS = 16
_SNAPSHOTS = 256
"""At most so many tasks, and snapshots in all, are kept; the tasks that were used longest ago go first."""


class Snapshot(NamedTuple):
    """An episode after some actions. It is never stepped, only forked."""

    actions: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    environment: Environment


class Snapshots:
    """The snapshots of one worker."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Task, dict[tuple[str, ...], Snapshot]] = OrderedDict()

    def nearest(self, task: Task, actions: Sequence[str]) -> Snapshot | None:
        """The snapshot with the longest part of these actions behind it."""
        kept = self._kept.get(task)
        if not kept:
            return None
        self._kept.move_to_end(task)
        reached = (kept.get(tuple(actions[:length])) for length in range(len(actions), -1, -1))
        return next((snapshot for snapshot in reached if snapshot), None)

    def holds(self, task: Task, actions: tuple[str, ...]) -> bool:
        """Whether there is one of exactly this state."""
        return actions in self._kept.get(task, {})

    def keep(self, task: Task, snapshot: Snapshot) -> None:
        """Add one, and let go of the oldest tasks where there are too many."""
        self._kept.setdefault(task, {})[snapshot.actions] = snapshot
        self._kept.move_to_end(task)
        while len(self._kept) > _TASKS or (len(self._kept) > 1 and len(self) > _SNAPSHOTS):
            _, dropped = self._kept.popitem(last=False)
            for old in dropped.values():
                old.environment.close()
        if len(self) > _SNAPSHOTS:
            oldest = next(iter(self._kept[task]))
            self._kept[task].pop(oldest).environment.close()

    def __len__(self) -> int:
        return sum(map(len, self._kept.values()))
