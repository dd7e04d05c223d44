"""What a text world is to the rest of the program.

A `World` is cheap and pure: it knows which tasks there are. Its `start()` gives a `Simulator`, heavy and alive,
which lives in a worker process and opens `Environment`s, one for each episode at a time; only strings and
numbers cross the process border.
"""

from typing import NamedTuple, Protocol

from sandcli.records import Task


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

    def reset(self, task: Task) -> Reset:
        """Begin the task; called once."""

    def step(self, action: str) -> Outcome:
        """Execute one action."""


class Simulator(Protocol):
    """The live half of a world, in a worker process. Not safe for threads."""

    def open(self) -> Environment:
        """A new environment."""

    def expert(self, task: Task) -> list[str]:
        """The actions of the world's own expert for this task."""

    def close(self) -> None:
        """End whatever runs behind it."""


class World(Protocol):
    """A family of tasks; importing it and asking it is fast and starts nothing."""

    name: str
    system: str
    """What every agent is told first: the rules of the world and the form of its turns."""

    def tasks(self, split: str) -> list[Task]:
        """The tasks of `train`, `seen` or `unseen`, task types taking turns. `UsageError` for another split."""

    def task_of(self, identifier: str) -> Task:
        """The task that an expert data set calls by this name. `UsageError` for an unknown one."""

    def step_limit(self, task: Task) -> int:
        """The most steps of one episode."""

    def same(self, observed: str, recorded: str) -> bool:
        """Whether two observations tell the same, listings in another order included."""

    def versions(self) -> dict[str, str]:
        """What an artifact's content depends on: the simulator's version and its settings."""

    def runtime(self) -> str:
        """What the simulator runs on here and why, for people. `PrerequisiteError` where it cannot run."""

    def start(self) -> Simulator:
        """Start the live half."""
