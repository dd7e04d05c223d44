"""What a text world is to the rest of the program.

A `World` is cheap and pure: it knows which tasks there are. Its `start()` gives a `Simulator`, heavy and alive,
which lives in a worker process and opens `Environment`s, one for each episode; only strings and numbers cross the
process border.
"""

import difflib
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import NamedTuple, Protocol

from sandcli.errors import UsageError
from sandcli.records import Task


class WorldSettings(NamedTuple):
    """What the [env] table tells a world; each world reads what it knows."""

    simplifications: str = "eto"
    tasks: tuple[str, ...] = ("paper",)
    step_limit: int = 0
    games: str = ""
    translate: bool = False


DEFAULTS = WorldSettings()


class Reset(NamedTuple):
    """A fresh episode: the instruction u as the agent reads it, and the score before the first step."""

    instruction: str
    score: float


class Outcome(NamedTuple):
    """What one action led to. `score` is in [0, 1]; `valid` is false for a command the world does not know."""

    observation: str
    score: float
    done: bool
    valid: bool


class Environment(Protocol):
    """One episode of one task. Environments of one simulator do not disturb each other."""

    reset: Reset
    """How the episode began."""

    def step(self, action: str) -> Outcome:
        """Execute one action."""

    def fork(self) -> "Environment | None":
        """Another episode in the same state, which goes its own way; none where that can only be had by replay."""

    def close(self) -> None:
        """Free what the episode holds. Its forks live on; it must not be used again."""


class Simulator(Protocol):
    """The live half of a world, in a worker process. Not safe for threads."""

    def open(self, task: Task) -> Environment:
        """A new episode at the start of a task."""

    def expert(self, task: Task, kind: str, seed: int) -> list[str]:
        """The actions of one of the world's experts; empty where it gives up. `seed` is for one that draws lots."""

    def close(self) -> None:
        """End whatever runs behind it."""


class World(Protocol):
    """A family of tasks; importing it and asking it is fast and starts nothing. Made from `WorldSettings`."""

    name: str
    system: str
    """What every agent is told first: the rules of the world and the form of its turns."""

    @property
    def experts(self) -> Sequence[str]:
        """The names of its experts; the first is the usual one."""

    def tasks(self, split: str) -> list[Task]:
        """The tasks of `train`, `seen` or `unseen`, task types taking turns. `UsageError` for another split."""

    def task_of(self, identifier: str) -> Task:
        """The task that an expert data set calls by this name. `UsageError` for an unknown one."""

    def step_limit(self, task: Task) -> int:
        """The most steps of one episode."""

    def same(self, observed: str, recorded: str) -> bool:
        """Whether two observations tell the same, listings in another order included."""

    def adapted(self, task: Task, actions: list[str], observations: list[str]) -> tuple[list[str], list[str]]:
        """What an expert data set recorded, in the words that this task is played in. `UsageError` where it cannot."""

    def versions(self) -> dict[str, str]:
        """What an artifact's content depends on: the simulator's version and its settings."""

    def runtime(self) -> str:
        """What the simulator runs on here and why, for people. `PrerequisiteError` where it cannot run."""

    def start(self) -> Simulator:
        """Start the live half."""


def taking_turns(groups: Iterable[Iterable[Task]]) -> list[Task]:
    """The first of every group, then the second of every group, and so on."""
    return [task for row in zip_longest(*groups) for task in row if task is not None]


def chosen_types(world: str, names: Sequence[str], known: Sequence[str], paper: Sequence[str]) -> list[str]:
    """The task types that `paper`, `all` and names of types select. `UsageError` for an unknown one."""
    chosen: dict[str, None] = {}
    for name in names:
        if name not in ("paper", "all", *known):
            close = difflib.get_close_matches(name, known, n=1)
            fix = f"did you mean {close[0]}?" if close else "use paper, all, or one of: " + ", ".join(known)
            raise UsageError(f"unknown {world} task type {name!r}", fix)
        chosen.update(dict.fromkeys({"paper": paper, "all": known}.get(name, [name])))
    return list(chosen)
