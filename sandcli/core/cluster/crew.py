"""A crew: an actor on one node, with an engine and environments, that does units of one stage."""

import asyncio
import contextlib
import os
import socket
import traceback
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from sandcli.core.context import Context
from sandcli.core.executor import step
from sandcli.core.manifest import Identity, Spent, versions
from sandcli.core.run import Run
from sandcli.core.stage import Stage, Unit
from sandcli.engine_settings import ClusterSettings
from sandcli.errors import MachineryError, PrerequisiteError, SandError
from sandcli.interrupts import never
from sandcli.settings import Settings

ANSWER_EVERY = 5.0
"""A crew answers at least this often, in seconds."""


@dataclass(frozen=True)
class Assignment:
    """The stage that a crew is to work on. Relative paths start at `folder`, where the command was given."""

    kind: type[Stage[Any, Any]]
    run: Run
    settings: Settings
    limit: int | None
    folder: str

    @classmethod
    def of(cls, stage: Stage[Any, Any], workers: int) -> "Assignment":
        """A stage of the driver as a crew with so many environment workers does it: without a cluster of its own."""
        settings = stage.context.settings
        alone = replace(settings, cluster=ClusterSettings(), run=replace(settings.run, workers=workers))
        return cls(type(stage), Run(stage.run.root.absolute()), alone, stage.limit, str(Path.cwd()))


class Description(NamedTuple):
    """What a crew's records depend on."""

    identity: Identity
    versions: dict[str, str]


class Room(NamedTuple):
    """How many units a crew ever takes at once, and how many it takes now."""

    most: int
    now: int


class Assigned(NamedTuple):
    """A unit that a crew is to do; see `Stage.step`. The driver knows it by its number."""

    number: int
    unit: Unit[Any]
    earlier: Any


class Ended(NamedTuple):
    """Units that a crew has ended, by their numbers, each with its result or error; and its room now."""

    units: list[tuple[int, object]]
    room: Room


class Crew:
    """The inside of the actor."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._open = AsyncExitStack()
        self._doing: set[asyncio.Task[None]] = set()
        self._finished: list[tuple[int, object]] = []
        self._any = asyncio.Event()

    def __repr__(self) -> str:
        return f"sand {self._assignment.kind.name}"  # its name in Ray's tools

    async def describe(self) -> Description:
        """Find the run. Raises `PrerequisiteError` if it is not there."""
        assigned = self._assignment
        try:
            os.chdir(assigned.folder)
            assigned.run.must_exist()
        except (OSError, SandError) as error:
            raise PrerequisiteError(
                f"{assigned.run.root} is not there ({error})",
                "put the run and its models on a file system that all nodes share, under the same path",
            ) from None
        context = Context(assigned.run, assigned.settings, assigned.limit)
        self._stage = await asyncio.to_thread(assigned.kind, context)
        self._stage.stop = never
        self._stage.artifact.world_log = _own_log(self._stage.artifact.world_log)
        return Description(await asyncio.to_thread(self._stage.identity), await asyncio.to_thread(versions))

    async def open(self) -> Room:
        """Load the model and start the environments. Raises what keeps them from it."""
        await self._open.enter_async_context(self._stage.opened())
        return self._room()

    def _room(self) -> Room:
        most = self._stage.context.in_flight(self._stage.sequences)
        cached = self._stage.context.gate.room
        return Room(most, most if cached is None else min(most, cached))

    async def begin(self, tasks: Sequence[Assigned]) -> None:
        """Begin some units."""
        for task in tasks:
            doing = asyncio.create_task(self._do(task))
            self._doing.add(doing)
            doing.add_done_callback(self._doing.discard)

    async def _do(self, task: Assigned) -> None:
        result: object
        try:
            result = await step(self._stage, task.unit, task.earlier)
        except (SandError, MachineryError, OSError) as error:
            result = error
        except Exception as error:  # a bug: its own class may not be known to the driver, so it goes as text
            result = RuntimeError(f"in a crew: {type(error).__name__}: {error}")
            result.add_note(traceback.format_exc())
        self._finished.append((task.number, result))
        self._any.set()

    async def finished(self) -> Ended:
        """The units that ended since the last call.

        Waits for the first of them, but not long: an answer also shows that this process still works.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_EVERY):
                await self._any.wait()
        self._any.clear()
        ended, self._finished = self._finished, []
        return Ended(ended, self._room())

    async def close(self) -> Spent:
        """Free everything. Returns what the work took."""
        await self._open.aclose()
        return self._stage.context.spent


def _own_log(log: Path) -> Path:
    """A file that no other crew writes to."""
    return log.with_suffix(f".{socket.gethostname()}-{os.getpid()}.log")
