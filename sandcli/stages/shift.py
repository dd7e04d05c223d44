"""One process's turn at a stage: many units at once, each journalled as it is done, failures retried and listed."""

import asyncio
from typing import Any, Generic

from sandcli.errors import MachineryError
from sandcli.progress import Bar
from sandcli.records import Failure
from sandcli.stages.interrupts import Interrupts
from sandcli.stages.job import Do, Job, LeftOut, P, R, Unit, unit_name
from sandcli.store import Journal

_GIVE_UP_AFTER = 20
"""Failed units in a row after which a stage stops trying."""


class Shift(Generic[P, R]):
    """One process's turn at a stage: the units it does, and what became of them."""

    def __init__(self, job: Job[P, R], journal: Journal[R], patient: bool) -> None:
        """`patient`: try every unit, however many fail; who accepts failures wants all the others."""
        self._job = job
        self._journal = journal
        self._patient = patient
        self.failures: list[Failure] = []
        self.left_out: dict[str, str] = {}
        self.interrupted = False
        self.unfinished = False
        self._in_a_row = 0

    def run(self, todo: list[Unit[P]], recorded: int) -> None:
        """Do the units. An interrupt ends it early, after what is in flight."""
        total = recorded + len(todo)
        with Bar(self._job.stage, total, recorded).shown() as bar, Interrupts() as self._interrupts:
            asyncio.run(self._all(todo, bar))
        self.interrupted = self._interrupts.asked

    async def _all(self, todo: list[Unit[P]], bar: Bar) -> None:
        pending: set[asyncio.Task[None]] = set()
        source = iter(todo)
        async with self._job.opened() as do:
            try:
                while True:
                    self._hire(source, pending, do)
                    if not pending:
                        break
                    finished, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                    for error in [task.exception() for task in finished]:
                        if error is not None:
                            raise error
                        bar.advance()
            finally:
                for task in pending:
                    task.cancel()
                await asyncio.gather(*pending, return_exceptions=True)
        self.unfinished = bool(self.failures) or next(source, None) is not None

    def _hire(self, source: Any, pending: set["asyncio.Task[None]"], do: Do[P, R]) -> None:
        while len(pending) < self._job.context.settings.run.in_flight and not self._stopping():
            unit = next(source, None)
            if unit is None:
                return
            pending.add(asyncio.create_task(self._one(unit, do)))

    def _stopping(self) -> bool:
        hopeless = self._in_a_row >= _GIVE_UP_AFTER and not self._patient
        return self._interrupts.asked or hopeless

    async def _one(self, unit: Unit[P], do: Do[P, R]) -> None:
        """Do one unit, with retries; what comes of it is on disk before anything else happens."""
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
        else:
            self._journal.append(result)

    def _failed(self, unit: Unit[P], error: MachineryError, attempts: int) -> None:
        self._in_a_row += error.reason in ("engine", "environment", "timeout")
        failure = Failure(unit=list(unit.key), reason=error.reason, detail=error.detail, attempts=attempts)
        self.failures.append(failure)
        self._job.run.set_failures(self._job.stage, self.failures)
