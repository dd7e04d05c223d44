"""One process's turn at a stage: many units at once, each journalled as it is done, failures retried and listed."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, Generic

from sandcli.core.stage import Do, Job, LeftOut, P, R, Unit, unit_name
from sandcli.core.store import Journal
from sandcli.errors import MachineryError
from sandcli.interrupts import Interrupts
from sandcli.progress import Bar
from sandcli.records import Failure

_GIVE_UP_AFTER = 20
"""Failed units in a row after which a stage stops trying."""


class Shift(Generic[P, R]):
    """One process's turn at a stage: the units it does, and what became of them."""

    def __init__(self, job: Job[P, R], journal: Journal[R], patient: bool, elsewhere: Sequence[Failure]) -> None:
        """`patient`: try every unit, however many fail; who accepts failures wants all the others.

        `elsewhere` are failures of units that are not looked at this time; they stay listed.
        """
        self._job = job
        self._journal = journal
        self._patient = patient
        self._elsewhere = elsewhere
        self._interrupts = Interrupts()
        self.failures: list[Failure] = []
        self.left_out: dict[str, str] = {}
        self.interrupted = False
        self.unfinished = False
        self.recorded = 0
        self._in_a_row = 0

    def run(self, units: Iterator[Unit[P]], todo: int, recorded: int) -> None:
        """Do the units, of which there are `todo`. An interrupt ends it early, after what is in flight."""
        with Bar(self._job.stage, recorded + todo, recorded).shown() as self._bar, self._interrupts:
            asyncio.run(self._all(units))
        self.interrupted = self._interrupts.asked

    async def _all(self, units: Iterator[Unit[P]]) -> None:
        """As many lanes as units may be in flight, each taking the next as soon as it is done with one."""
        async with self._job.opened() as do:
            self._done: asyncio.Queue[R | LeftOut | None] = asyncio.Queue()
            recording = asyncio.create_task(self._record())
            width = self._job.context.in_flight(self._job.sequences)
            lanes = [asyncio.create_task(self._lane(units, do)) for _ in range(width)]
            try:
                working = asyncio.gather(*lanes)
                either: set[asyncio.Future[Any]] = {working, recording}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if not recording.done():  # otherwise the disk is full, or the like
                    await working
            finally:
                for lane in lanes:
                    lane.cancel()
                await asyncio.gather(*lanes, working, return_exceptions=True)
                self._done.put_nowait(None)
                await recording
        self.unfinished = bool(self.failures) or next(units, None) is not None

    async def _lane(self, units: Iterator[Unit[P]], do: Do[P, R]) -> None:
        while not self._stopping():
            unit = next(units, None)
            if unit is None:
                return
            await self._one(unit, do)
            await asyncio.sleep(0)  # an engine that answers at once would never let the others have a turn

    def _stopping(self) -> bool:
        hopeless = self._in_a_row >= _GIVE_UP_AFTER and not self._patient
        return self._interrupts.asked or hopeless

    async def _record(self) -> None:
        """Put on disk what is done. Nobody waits for it: what comes while the disk is busy shares the next write."""
        ended = False
        while not ended:
            finished = [await self._done.get()]
            while not self._done.empty():
                finished.append(self._done.get_nowait())
            records = [item for item in finished if item is not None and not isinstance(item, LeftOut)]
            if records:
                await asyncio.to_thread(self._journal.append, *records)
                self.recorded += len(records)
            ended = None in finished
            self._bar.advance(len(finished) - ended)

    async def _one(self, unit: Unit[P], do: Do[P, R]) -> None:
        """Do one unit, with retries."""
        earlier = self._journal.get(unit.key) if unit.key in self._journal else None
        attempts = 1 + self._job.context.settings.run.retries
        for attempt in range(1, attempts + 1):
            try:
                result = await do(unit, earlier)
            except MachineryError as error:
                if attempt == attempts or error.reason in ("replay_diverged", "context"):
                    self._failed(unit, error, attempt)
                    return
                continue
            break
        self._in_a_row = 0
        if isinstance(result, LeftOut):
            self.left_out[unit_name(unit.key)] = result.reason
        self._done.put_nowait(result)

    def _failed(self, unit: Unit[P], error: MachineryError, attempts: int) -> None:
        self._in_a_row += error.reason in ("engine", "environment", "timeout")
        failure = Failure(unit=list(unit.key), reason=error.reason, detail=error.detail, attempts=attempts)
        self.failures.append(failure)
        self._bar.advance()
        self.list_failures()

    def list_failures(self) -> None:
        """Put them where `sand status` finds them."""
        self._job.run.set_failures(self._job.stage, [*self._elsewhere, *self.failures])
