"""Where units are done: in this process, or by crews on a cluster."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Generic, Protocol

from sandcli.core.stage import P, R, Skipped, Stage, Unit
from sandcli.errors import MachineryError, PrerequisiteError
from sandcli.install import install_command


class Executor(Protocol[P, R]):
    """Does units. The runner hands them out, tries again what failed, and records."""

    @property
    def label(self) -> str:
        """Who does them, as progress bars show it; empty for this process alone."""

    async def more(self) -> int:
        """Wait until more units can be in progress than before. Returns how many more; the first answer comes soon."""

    async def do(self, unit: Unit[P], earlier: R | None) -> R | Skipped:
        """Do one unit; see `Stage.step`."""


async def step(stage: Stage[P, R], unit: Unit[P], earlier: R | None) -> R | Skipped:
    """Do a unit in this process, when the engine's cache has room for it.

    Raises `MachineryError` for a request that was cancelled, and before it begins if the stage is to stop.
    """
    try:
        async with stage.context.gate.entered(stage.stop):
            return await stage.step(unit, earlier)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():  # the stage ends
            raise
        raise MachineryError("engine", "the request was cancelled") from error


class _Here(Generic[P, R]):
    """This process."""

    label = ""

    def __init__(self, stage: Stage[P, R]) -> None:
        self._stage = stage
        self._asked = False

    async def more(self) -> int:
        """The room there is. It never grows."""
        if self._asked:
            await asyncio.Event().wait()
        self._asked = True
        return self._stage.context.in_flight(self._stage.sequences)

    async def do(self, unit: Unit[P], earlier: R | None) -> R | Skipped:
        """See `Executor`."""
        return await step(self._stage, unit, earlier)


def uses_cluster(stage: Stage[P, R]) -> bool:
    """Whether crews do the units of a stage."""
    return stage.can_use_cluster and bool(stage.context.settings.cluster.address)


@asynccontextmanager
async def executor_of(stage: Stage[P, R]) -> AsyncIterator[Executor[P, R]]:
    """What does the units of a stage, with its engines and environments open."""
    if not uses_cluster(stage):
        async with stage.opened():
            yield _Here(stage)
        return
    try:
        from sandcli.core.cluster.crews import Crews
    except ImportError:
        raise PrerequisiteError("--cluster needs ray, which is not installed", install_command("ray")) from None
    async with Crews(stage) as crews:
        yield crews
