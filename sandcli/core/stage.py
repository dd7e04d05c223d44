"""What a JSONL stage is: a `Job` that plans its units of work (pure) and does one unit (not pure).

`work` compares a job with what is there already, `shift` does the units; both are the same for all stages.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

import msgspec

from sandcli.core.context import Context
from sandcli.core.run import Identity, Manifest, Run, Stage
from sandcli.core.store import Records
from sandcli.engines.base import Model
from sandcli.errors import Exit
from sandcli.records import Failure, Key


class HasKey(Protocol):
    """A record."""

    @property
    def key(self) -> Key:
        """Its unit."""


P = TypeVar("P")
R = TypeVar("R", bound=HasKey)


@dataclass(frozen=True)
class Unit(Generic[P]):
    """One piece of work. `digest` hashes the inputs that its result depends on."""

    key: Key
    digest: str
    payload: P


class LeftOut(NamedTuple):
    """The verdict on a unit that makes no record, such as an expert path that does not reach its score."""

    reason: str


Do = Callable[[Unit[P], R | None], Awaitable[R | LeftOut]]
"""Does one unit; the second argument is an earlier record that does not satisfy what is asked for now."""


@dataclass
class Figures:
    """What a stage's summary and manifest tell about its records."""

    counts: dict[str, int] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    tokens: int = 0


class Job(ABC, Generic[P, R]):
    """One stage on one run."""

    stage: Stage
    record: type[R]
    sequences = 1
    """Sequences that a unit lets the engine decode at the same time."""

    may_hold_more = False
    """Whether the plan itself keeps to `limit` and to the tasks that are set, so that records outside it are fine.
    Otherwise the plan is all that the inputs hold, and a record outside it tells that an input changed."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.run: Run = context.run

    @abstractmethod
    def identity(self) -> Identity:
        """What the artifact depends on. Cheap: no simulator, no model."""

    @abstractmethod
    def plan(self) -> Iterable[Unit[P]]:
        """Every unit that the inputs define, in canonical order. Pure, and lazy: there may be a great many."""

    def model(self) -> Model | None:
        """The model that does the work, if any does; of several the first."""
        return None

    @abstractmethod
    def opened(self) -> AbstractAsyncContextManager["Do[P, R]"]:
        """Open models and environments, and give the function that does a unit."""

    @abstractmethod
    def figures(self, records: Iterable[R]) -> Figures:
        """Summarise the records."""

    def satisfied(self, unit: Unit[P], record: R) -> bool:
        """Whether a record is all that is asked for now."""
        return True

    def whole(self) -> bool:
        """Whether all that belongs to a finished artifact is there."""
        return True

    def completed(self, records: Records[R]) -> None:
        """Make what else belongs to the artifact, before it is sealed."""


class Options(NamedTuple):
    """What the command line asks of any stage."""

    force: bool = False
    accept_stale: bool = False
    accept_failures: bool = False
    dry_run: bool = False


class State(NamedTuple):
    """A stage's artifact held against what is asked for.

    `stale`: made from something else, and `reasons` says what. `wider`: finished, and more is asked for now.
    `todo` counts units, `first` is the first of them.
    """

    kind: Literal["missing", "partial", "wider", "done", "stale"]
    recorded: int
    todo: int
    reasons: list[str]
    first: Key | None = None


class Summary(NamedTuple):
    """How a stage ended. `forecast`: nothing was done yet, and there is something to do."""

    stage: Stage
    exit: Exit
    message: str
    manifest: Manifest | None
    failures: list[Failure]
    forecast: bool = False


def unit_name(key: Key) -> str:
    """A unit's key as text, for messages and manifests."""
    return msgspec.json.encode(key).decode()
