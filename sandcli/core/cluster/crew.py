"""A crew: an actor on one node, with an engine and environments, that does units of one stage."""

import asyncio
import os
import socket
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from sandcli.core.context import Context
from sandcli.core.manifest import Identity, Spent, versions
from sandcli.core.run import Run
from sandcli.core.stage import Skipped, Stage, Unit
from sandcli.errors import PrerequisiteError, SandError
from sandcli.interrupts import never
from sandcli.settings import ClusterSettings, Settings


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
        """A stage of the driver as a crew with so many environment workers does it: by itself."""
        settings = stage.context.settings
        alone = replace(settings, cluster=ClusterSettings(), run=replace(settings.run, workers=workers))
        return cls(type(stage), Run(stage.run.root.absolute()), alone, stage.limit, str(Path.cwd()))


class Card(NamedTuple):
    """What a crew that is ready says of itself: how many units it takes at once, and what its records depend on."""

    room: int
    identity: Identity
    versions: dict[str, str]


class Crew:
    """The inside of the actor."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._open = AsyncExitStack()

    def __repr__(self) -> str:
        return f"sand {self._assignment.kind.name}"  # its name in Ray's tools

    async def open(self) -> Card:
        """Load the model and start the environments. Raises what keeps them from it."""
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
        identity = await asyncio.to_thread(self._stage.identity)
        await self._open.enter_async_context(self._stage.opened())
        room = self._stage.context.in_flight(self._stage.sequences)
        return Card(room, identity, await asyncio.to_thread(versions))

    async def do(self, unit: Unit[Any], earlier: Any) -> Any | Skipped:
        """See `Stage.step`."""
        return await self._stage.step(unit, earlier)

    async def answer(self) -> None:
        """Show that this process still works."""

    async def close(self) -> Spent:
        """Free everything. Returns what the work took."""
        await self._open.aclose()
        return self._stage.context.spent


def _own_log(log: Path) -> Path:
    """A file that no other crew writes to."""
    return log.with_suffix(f".{socket.gethostname()}-{os.getpid()}.log")
