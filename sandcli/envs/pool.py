"""A pool of worker processes that hold the environments.

A worker process holds many episodes, and snapshots of the states that episodes were restored to. Branches of one task
go to a worker that holds its snapshots. A worker that dies, hangs, grows too big or reports a broken simulator is
replaced, and its episodes are replayed action by action. The observations of a restored prefix are compared with those
that the trajectory recorded.
"""

import asyncio
import os
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from sandcli.envs.base import Outcome, Reset, World
from sandcli.envs.worker import MAX_DEATHS, Worker, WorkerDied, WorkerReplaced
from sandcli.errors import MachineryError
from sandcli.files import disk_space
from sandcli.interrupts import never
from sandcli.records import Step, Task, storable

_MAX_IMBALANCE = 4
"""A task spreads to another worker if its own workers hold this many more episodes than the idlest one."""

_MAX_TASKS = 256
"""The pool remembers for this many tasks which workers hold their snapshots."""

_LOOK_EVERY = 0.2
"""Seconds between two looks at whether an expert should come to its end."""

_GRACE = 10.0
"""Seconds that it has for that."""

NO_LOG = Path(os.devnull)
"""Where the output of a world goes if there is no log."""


class Restored(NamedTuple):
    """An episode brought to a state: how it began, and the outcome of each action of the prefix."""

    reset: Reset
    outcomes: list[Outcome]

    @property
    def best(self) -> float:
        """The highest score, including the one before the first step."""
        return max(self.reset.score, *(outcome.score for outcome in self.outcomes), 0.0)


class Pool:
    """Worker processes for one world; an asynchronous context manager.

    `build` makes the world inside a worker process and must be picklable. `timeout` limits one call, in seconds. What
    the world prints is appended to the file `log`, which is not kept if it is empty.
    """

    def __init__(self, build: Callable[[], World], workers: int, timeout: float, log: Path = NO_LOG) -> None:
        self._world = build()
        self._log = log
        self._workers = [Worker(build, timeout, log) for _ in range(workers)]
        self._holders: OrderedDict[Task, list[Worker]] = OrderedDict()

    @property
    def waited(self) -> float:
        """Seconds that episodes waited for an answer, summed over all episodes."""
        return sum(worker.waited for worker in self._workers)

    @property
    def replaced(self) -> int:
        """How many characters of observations and instructions were replaced because UTF-8 cannot hold them."""
        return sum(worker.replaced for worker in self._workers)

    @property
    def restarts(self) -> Counter[str]:
        """How many worker processes were replaced, by reason."""
        return sum((worker.restarts for worker in self._workers), Counter())

    async def __aenter__(self) -> "Pool":
        self._make_log()
        try:
            await asyncio.gather(*(worker.call_with_restarts("ping") for worker in self._workers))
        except BaseException as error:
            await self.__aexit__(None, None, None)
            if isinstance(error, MachineryError):
                detail = f"the environment does not start: {error.detail}"
                raise MachineryError(error.reason, detail + self._see_log()) from error
            raise
        for worker in self._workers:
            worker.waited = 0.0  # do not count the start
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(worker.stop() for worker in self._workers))
        if self._log.is_file() and not self._log.stat().st_size:
            self._log.unlink()

    def _make_log(self) -> None:
        with disk_space(self._log):
            self._log.parent.mkdir(exist_ok=True)
            self._log.open("ab").close()

    def _see_log(self) -> str:
        return f" (see {self._log})" if self._log.is_file() else ""

    async def restore(self, task: Task, prefix: Sequence[Step] = ()) -> "Session":
        """A new episode in the state after the prefix.

        Raises `MachineryError` with `replay_diverged` if an observation differs from the prefix's own.
        """
        session = Session(self._worker_for(task), task)
        try:
            await session.open(prefix, self._world.observations_match)
        except BaseException:
            await session.close()
            raise
        return session

    async def replay(self, task: Task, actions: Sequence[str]) -> Restored:
        """Run a list of actions from the start of a task, until the episode ends."""
        session = await self.restore(task)
        try:
            return Restored(session.reset, [o async for o in session.run(actions)])
        finally:
            await session.close()

    def _worker_for(self, task: Task) -> Worker:
        """The least busy worker that holds the task's snapshots, or the idlest of all if those are too busy."""
        idlest = min(self._workers, key=lambda w: w.sessions)
        holders = self._holders.setdefault(task, [idlest])
        self._holders.move_to_end(task)
        if len(self._holders) > _MAX_TASKS:
            self._holders.popitem(last=False)
        holder = min(holders, key=lambda w: w.sessions)
        if holder.sessions > idlest.sessions + _MAX_IMBALANCE:
            holders.append(idlest)
            return idlest
        return holder

    async def expert(self, task: Task, kind: str, seed: int, stop: Callable[[], bool] = never) -> list[str]:
        """The actions of one of the world's experts for a task.

        Some experts think for minutes. If one has no answer soon after `stop` returns true, it is broken off: that is a
        `MachineryError`.
        """
        worker = self._worker_for(task)
        worker.sessions += 1
        asked = asyncio.ensure_future(worker.call_with_restarts("expert", task, kind, seed))
        try:
            while not asked.done() and not stop():
                await asyncio.wait([asked], timeout=_LOOK_EVERY)
            await asyncio.wait([asked], timeout=_GRACE)
            if not asked.done():
                worker.break_off()
                raise MachineryError("expert", "it was interrupted")
        finally:
            worker.sessions -= 1
            asked.cancel()
        return [str(action) for action in asked.result()[1]]


class Session:
    """One episode in the pool; it survives the death of its worker."""

    def __init__(self, worker: Worker, task: Task) -> None:
        self._worker = worker
        self._worker.sessions += 1
        self._task = task
        self._history: list[tuple[str, Outcome]] = []
        self._slot = -1
        self._generation = -1
        self.reset = Reset("", 0.0)

    @property
    def outcomes(self) -> list[Outcome]:
        """The outcomes of all actions so far, including those of the restored prefix."""
        return [outcome for _, outcome in self._history]

    @property
    def score(self) -> float:
        """The current score."""
        return self._history[-1][1].score if self._history else self.reset.score

    @property
    def best(self) -> float:
        """The highest score so far, including the one before the first step."""
        return Restored(self.reset, self.outcomes).best

    async def open(self, prefix: Sequence[Step], match: Callable[[str, str], bool]) -> None:
        """Bring the episode to the state after the prefix, and compare it with what the prefix recorded."""
        restored = await self._restore([step.action for step in prefix])
        for number, (step, outcome) in enumerate(zip(prefix, restored.outcomes, strict=False)):
            if not match(outcome.observation, step.observation):
                raise replay_diverged(number, step.action, outcome.observation, step.observation)
        if len(restored.outcomes) < len(prefix):
            raise MachineryError("replay_diverged", f"the episode ended at step {len(restored.outcomes)}")
        self.reset = restored.reset
        self._history = list(zip((step.action for step in prefix), restored.outcomes, strict=True))

    async def step(self, action: str) -> Outcome:
        """Execute one action. `MachineryError` if the episode is over."""
        if self._history and self._history[-1][1].done:
            raise MachineryError("environment", f"{action!r} comes after the end of the episode")
        deaths = 0
        while True:
            try:
                if self._generation != self._worker.generation:
                    await self._reopen()
                _, answer = await self._worker.call("step", self._slot, action, generation=self._generation)
            except WorkerReplaced:
                continue
            except WorkerDied as error:
                deaths += 1
                if deaths == MAX_DEATHS:
                    raise MachineryError(error.reason, str(error)) from error
                continue
            outcome = self._outcome(answer)
            self._history.append((action, outcome))
            return outcome

    async def run(self, actions: Sequence[str]) -> AsyncIterator[Outcome]:
        """The outcomes of a list of actions, until the episode ends."""
        for action in actions:
            outcome = await self.step(action)
            yield outcome
            if outcome.done:
                return

    async def close(self) -> None:
        """Release the episode in its worker."""
        self._worker.sessions -= 1
        if self._generation == self._worker.generation and self._slot >= 0:
            try:
                await self._worker.call("release", self._slot, generation=self._generation)
            except (WorkerReplaced, WorkerDied):
                return

    async def _reopen(self) -> None:
        restored = await self._restore([action for action, _ in self._history])
        if restored.outcomes != self.outcomes:
            detail = "the episode replayed differently after its worker was replaced"
            raise MachineryError("replay_diverged", detail)

    async def _restore(self, actions: list[str]) -> Restored:
        self._generation, answer = await self._worker.call_with_restarts("restore", self._task, actions)
        self._slot, reset, outcomes = answer
        return Restored(self._reset(reset), [self._outcome(outcome) for outcome in outcomes])

    def _reset(self, answer: tuple[Any, ...]) -> Reset:
        reset = Reset(*answer)
        return Reset(self._text(reset.instruction), _score(reset.score))

    def _outcome(self, answer: tuple[Any, ...]) -> Outcome:
        outcome = Outcome(*answer)
        return outcome._replace(observation=self._text(outcome.observation), score=_score(outcome.score))

    def _text(self, text: str) -> str:
        """A text of the world, with every character replaced that cannot be recorded."""
        said, replaced = storable(text)
        self._worker.replaced += replaced
        return said


def _score(score: float) -> float:
    """A score of the world, which must be in [0, 1]; NaN is not."""
    if not 0 <= score <= 1:
        raise MachineryError("environment", f"the world gave a score of {score}, which is not between 0 and 1")
    return score


def replay_diverged(number: int, action: str, observed: str, recorded: str) -> MachineryError:
    """The error for an observation that differs from the recorded one. It quotes the first line that differs."""
    now, then = observed.splitlines(), recorded.splitlines()
    unlike = next((i for i in range(max(len(now), len(then))) if now[i : i + 1] != then[i : i + 1]), 0)
    lines = f"recorded {''.join(then[unlike : unlike + 1])!r}, observed {''.join(now[unlike : unlike + 1])!r}"
    return MachineryError("replay_diverged", f"step {number} ({action}): {lines}")
