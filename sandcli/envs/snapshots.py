"""Snapshots: episodes frozen after a prefix, so that the next branch from that state need not replay the prefix."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from sandcli.envs.base import Environment, Outcome
from sandcli.records import Task

_MAX_TASKS = 16
_MAX_SNAPSHOTS = 256
"""Limits on the tasks and the snapshots kept; the least recently used tasks are dropped first."""


class Snapshot(NamedTuple):
    """An episode after some actions. It is forked but never stepped."""

    actions: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    environment: Environment


class Snapshots:
    """The snapshots of one worker process."""

    def __init__(self) -> None:
        self._by_task: OrderedDict[Task, dict[tuple[str, ...], Snapshot]] = OrderedDict()

    def nearest(self, task: Task, actions: Sequence[str]) -> Snapshot | None:
        """The snapshot after the longest prefix of these actions."""
        kept = self._by_task.get(task)
        if not kept:
            return None
        self._by_task.move_to_end(task)
        reached = (kept.get(tuple(actions[:length])) for length in range(len(actions), -1, -1))
        return next((snapshot for snapshot in reached if snapshot), None)

    def holds(self, task: Task, actions: tuple[str, ...]) -> bool:
        """Whether there is a snapshot of exactly this state."""
        return actions in self._by_task.get(task, {})

    def add(self, task: Task, snapshot: Snapshot) -> None:
        """Add a snapshot of a state that has none yet, and drop the oldest ones if there are too many."""
        self._by_task.setdefault(task, {})[snapshot.actions] = snapshot
        self._by_task.move_to_end(task)
        while len(self._by_task) > _MAX_TASKS or (len(self._by_task) > 1 and len(self) > _MAX_SNAPSHOTS):
            _, dropped = self._by_task.popitem(last=False)
            for old in dropped.values():
                old.environment.close()
        if len(self) > _MAX_SNAPSHOTS:
            oldest = next(iter(self._by_task[task]))
            self._by_task[task].pop(oldest).environment.close()

    def __len__(self) -> int:
        return sum(map(len, self._by_task.values()))
