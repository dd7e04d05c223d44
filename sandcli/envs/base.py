"""The protocol of text worlds.

A `World` is cheap: it lists tasks and starts nothing. Its `start()` returns a `Simulator`, which is heavy and lives in
a worker process. A simulator opens `Environment`s, one for each episode. Only strings and numbers cross the process
border.
"""

import difflib
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import NamedTuple, Protocol

from sandcli.errors import UsageError
from sandcli.records import Task
from sandcli.settings import EnvSettings

DEFAULTS = EnvSettings()


class Reset(NamedTuple):
    """The start of an episode: the instruction u as the agent reads it, and the score before the first step."""

    instruction: str
    score: float


class Outcome(NamedTuple):
    """The result of one action. `score` is in [0, 1]; `valid` is false if the world does not know the command."""

    observation: str
    score: float
    done: bool
    valid: bool


class Environment(Protocol):
    """One episode of one task. Environments of one simulator are independent of each other."""

    reset: Reset
    """How the episode began."""

    def step(self, action: str) -> Outcome:
        """Execute one action."""

    def fork(self) -> "Environment | None":
        """An independent episode in the same state, or None if only a replay can reach that state."""

    def close(self) -> None:
        """Free what the episode holds. Its forks stay usable; the episode itself does not."""


class Simulator(Protocol):
    """The live half of a world, in a worker process. Not thread-safe."""

    def open(self, task: Task) -> Environment:
        """A new episode at the start of a task."""

    def expert(self, task: Task, kind: str, seed: int) -> list[str]:
        """The actions of one of the world's experts; empty if it gives up. `seed` is for experts that use chance."""

    def close(self) -> None:
        """Stop the simulator."""


class World(Protocol):
    """A family of tasks, made from `EnvSettings`. Importing and querying it is fast and starts nothing."""

    name: str
    system: str
    """The agent's system text: the rules of the world and the form of a turn."""

    @property
    def experts(self) -> Sequence[str]:
        """The names of its experts, the default first."""

    def tasks(self, split: str) -> list[Task]:
        """The tasks of `train`, `seen` or `unseen`, with task types interleaved. `UsageError` for another split."""

    def task_of(self, identifier: str) -> Task:
        """The task that an expert data set calls by this name. `UsageError` if there is none."""

    def step_limit(self, task: Task) -> int:
        """The maximum number of steps in one episode."""

    def content(self, task: Task) -> str:
        """A hash of the task's own files, which a panel notes; empty if `versions` says all. `UsageError` if the task
        is not there."""

    def observations_match(self, observed: str, recorded: str) -> bool:
        """Whether two observations say the same thing; the order of a listing does not matter."""

    def to_game_grammar(self, task: Task, actions: list[str], observations: list[str]) -> tuple[list[str], list[str]]:
        """Recorded actions and observations in the wording of this task's game. `UsageError` if that is impossible."""

    def versions(self) -> dict[str, str]:
        """What an artifact's content depends on: the simulator's version and its settings."""

    def check_available(self) -> str:
        """Describe for people what the simulator runs on. `PrerequisiteError` if it cannot run on this machine."""

    def start(self) -> Simulator:
        """Start the live half."""


def interleave(groups: Iterable[Iterable[Task]]) -> list[Task]:
    """The first task of every group, then the second of every group, and so on."""
    return [task for row in zip_longest(*groups) for task in row if task is not None]


def select_types(world: str, names: Sequence[str], known: Sequence[str], paper: Sequence[str]) -> list[str]:
    """The task types selected by `paper`, `all` and type names. `UsageError` for an unknown one."""
    selected: dict[str, None] = {}
    for name in names:
        if name not in ("paper", "all", *known):
            close = difflib.get_close_matches(name, known, n=1)
            fix = f"did you mean {close[0]}?" if close else "use paper, all, or one of: " + ", ".join(known)
            raise UsageError(f"unknown {world} task type {name!r}", fix)
        selected.update(dict.fromkeys({"paper": paper, "all": known}.get(name, [name])))
    return list(selected)
