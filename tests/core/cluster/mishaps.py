"""A rollout stage whose crews meet with accidents. It is imported in the processes of a Ray cluster.

Accidents are files in the run directory: `end` contains the unit at which every crew ends; `freeze` and `wait`
contain the unit at which one crew stops for ever, or for as long as the file `waited` is missing.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sandcli.core.manifest import Identity
from sandcli.core.stage import Unit
from sandcli.records import Rollout
from sandcli.stages.branches import Branch
from sandcli.stages.rollout import RolloutStage


class Unlucky(RolloutStage):
    """`sand rollout` with accidents."""

    async def step(self, unit: Unit[Branch], earlier: Rollout | None) -> Rollout:
        """Meet with the accidents that are meant for this unit."""
        if self._meant("end", unit):
            os._exit(1)
        if self._meant("freeze", unit) and self._first("frozen"):
            os.kill(os.getpid(), signal.SIGSTOP)
        if self._meant("wait", unit):
            self._first("waiting")
            while not (self.run.root / "waited").exists():
                await asyncio.sleep(0.01)
        return await super().step(unit, earlier)

    def _meant(self, accident: str, unit: Unit[Any]) -> bool:
        file = self.run.root / accident
        return file.exists() and file.read_text() == unit.name

    def _first(self, name: str) -> bool:
        """Whether no crew came here before; notes the crew's process."""
        note = self.run.root / name
        if note.exists():
            return False
        note.write_text(str(os.getpid()))
        return True


class Foreign(RolloutStage):
    """`sand rollout`, with crews that have another version of the world than the driver."""

    def identity(self) -> Identity:
        """The true one, except for the world's version in a driver."""
        made = super().identity()
        driver = Path(self.run.root / "driver").read_text() == str(os.getpid())
        made.settings["env.toyworld"] = "here" if driver else "there"
        return made


class Closed(RolloutStage):
    """`sand rollout` with crews that cannot start."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Never."""
        raise RuntimeError("out of order")
        yield


class Wrong(RolloutStage):
    """`sand rollout` with a bug."""

    async def step(self, unit: Unit[Branch], earlier: Rollout | None) -> Rollout:
        """Never."""
        raise KeyError("no such thing")
