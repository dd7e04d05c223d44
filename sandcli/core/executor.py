"""Where units are done: in this process, or by crews on a cluster."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Generic, Protocol

from sandcli.core.stage import P, R, Skipped, Stage, Unit
from sandcli.errors import PrerequisiteError
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
        async with self._stage.context.gate.entered(self._stage.stop):
            return await self._stage.step(unit, earlier)


def on_cluster(stage: Stage[P, R]) -> bool:
    """Whether crews do the units of a stage."""
    return stage.on_cluster and bool(stage.context.settings.cluster.address)


@asynccontextmanager
async def executor_of(stage: Stage[P, R]) -> AsyncIterator[Executor[P, R]]:
    """What does the units of a stage, with its engines and environments open."""
    if not on_cluster(stage):
        async with stage.opened():
            yield _Here(stage)
        return
    try:
        from sandcli.core.cluster.crews import Crews
    except ImportError:
        raise PrerequisiteError("--cluster needs ray, which is not installed", install_command("ray")) from None
    async with Crews(stage) as crews:
        yield crews
