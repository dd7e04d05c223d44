"""Does many units of a stage at once: each is journalled as soon as it is done, failures are retried and listed."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, Generic

from sandcli.core.executor import executor_of
from sandcli.core.stage import P, R, Skipped, Stage, Unit
from sandcli.core.work import Work
from sandcli.errors import Interrupted, MachineryError
from sandcli.progress import Bar
from sandcli.records import Failure

_GIVE_UP_AFTER = 20
"""Failed units in a row after which a stage stops trying."""

_NOT_RETRIED = ("replay_diverged", "context", "expert", "crew")
"""Failures that come out the same every time, or that cost a lot."""


class Units(Generic[P, R]):
    """What one process does of a stage, and the result: `recorded` counts, `skipped` and `failures` list units."""

    def __init__(
        self,
        stage: Stage[P, R],
        journal: Work[R],
        stop: Callable[[], bool],
        keep_going: bool,
        others: Sequence[Failure],
    ) -> None:
        """`stop` is asked between units. `keep_going`: try every unit, however many fail.

        `others` are earlier failures of units that are not part of this run; they stay listed.
        """
        self._stage = stage
        self._journal = journal
        self._stop = stop
        self._keep_going = keep_going
        self._others = others
        self.failures: list[Failure] = []
        self.skipped: dict[str, str] = {}
        self.interrupted = False
        self.unfinished = False
        self.recorded = 0
        self._failed_in_a_row = 0

    async def do(self, units: Iterator[Unit[P]], todo: int, recorded: int) -> None:
        """Do the units, of which there are `todo`. If `stop` says so, end early, after the units in progress."""
        self._bar = Bar(self._stage.name, recorded + todo, recorded)
        shown = nullcontext() if self._stage.own_progress else self._bar.display()
        with shown:
            try:
                async with executor_of(self._stage) as self._executor:
                    await self._in_lanes(units)
            except Interrupted:
                self.interrupted = True
        self.interrupted = self.interrupted or self._stop()

    async def _in_lanes(self, units: Iterator[Unit[P]]) -> None:
        """As many lanes as units may be in progress; each takes the next unit as soon as it has done one.

        A lane that ends found nothing more to do, so no other is begun after it.
        """
        self._results: asyncio.Queue[R | Skipped | None] = asyncio.Queue()
        recording = asyncio.create_task(self._record())
        lanes: set[asyncio.Task[None]] = set()
        working: list[asyncio.Future[Any]] = []
        more = asyncio.create_task(self._executor.more())
        try:
            while not any(task.done() for task in (recording, *lanes)):
                await asyncio.wait({more, recording, *lanes}, return_when=asyncio.FIRST_COMPLETED)
                if more.done():
                    lanes |= {asyncio.create_task(self._lane(units)) for _ in range(more.result())}
                    more = asyncio.create_task(self._executor.more())
            working.append(asyncio.gather(*lanes))
            await asyncio.wait({recording, *working}, return_when=asyncio.FIRST_COMPLETED)
            if not recording.done():  # otherwise recording failed, for example because the disk is full
                await working[0]
        finally:
            for task in (more, *lanes):
                task.cancel()
            await asyncio.gather(more, *lanes, *working, return_exceptions=True)
            self._results.put_nowait(None)
            await recording
        self.unfinished = bool(self.failures) or next(units, None) is not None

    async def _lane(self, units: Iterator[Unit[P]]) -> None:
        while not self._ends_early():
            unit = next(units, None)
            if unit is None:
                return
            await self._one(unit)
            await asyncio.sleep(0)  # an engine that answers at once would otherwise never let the other lanes run

    def _ends_early(self) -> bool:
        return self._stop() or (self._failed_in_a_row >= _GIVE_UP_AFTER and not self._keep_going)

    async def _record(self) -> None:
        """Write results to disk. Nobody waits for it: results that arrive during a write share the next one."""
        ended = False
        while not ended:
            finished = [await self._results.get()]
            while not self._results.empty():
                finished.append(self._results.get_nowait())
            records = [item for item in finished if item is not None and not isinstance(item, Skipped)]
            if records:
                await asyncio.to_thread(self._journal.append, *records)
                self.recorded += len(records)
            ended = None in finished
            self._bar.advance(len(finished) - ended, self._executor.label)

    async def _one(self, unit: Unit[P]) -> None:
        """Do one unit, with retries."""
        earlier = self._journal.get(unit.key) if unit.key in self._journal else None
        attempts = 1 + self._stage.context.settings.run.retries
        for attempt in range(1, attempts + 1):
            try:
                result = await self._step(unit, earlier)
            except MachineryError as error:
                if self._stop():
                    return  # it is tried again when the stage is resumed
                if attempt == attempts or error.reason in _NOT_RETRIED:
                    self._failed(unit, error, attempt)
                    return
            else:
                break
        self._failed_in_a_row = 0
        if isinstance(result, Skipped):
            self.skipped[unit.name] = result.reason
        self._results.put_nowait(result)

    async def _step(self, unit: Unit[P], earlier: R | None) -> R | Skipped:
        """One attempt. Raises `MachineryError` also for a record that could not be read back."""
        result = await self._executor.do(unit, earlier)
        if not isinstance(result, Skipped):
            self._journal.check(result)
        return result

    def _failed(self, unit: Unit[P], error: MachineryError, attempts: int) -> None:
        self._failed_in_a_row += error.reason not in _NOT_RETRIED
        failure = Failure(unit=list(unit.key), reason=error.reason, detail=error.detail, attempts=attempts)
        self.failures.append(failure)
        self._bar.advance(1, self._executor.label)
        self.list_failures()

    def list_failures(self) -> None:
        """Write the failures to where `sand status` finds them."""
        self._stage.artifact.set_failures([*self._others, *self.failures])
