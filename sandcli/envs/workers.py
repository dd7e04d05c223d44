"""A pool of worker processes that environments live in.

Environments stay where they are; tasks, actions and observations cross the border. A worker holds many episodes, and
snapshots of states that episodes were restored to; branches of one task go where its snapshots are. A worker that dies,
hangs, grows too big or reports a broken simulator is replaced, and its episodes are replayed action by action.
What was observed on the way to a state, when its snapshot was made, is compared with what the trajectory recorded.
"""

import asyncio
import multiprocessing
import signal
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import resource_tracker
from types import TracebackType
from typing import Any, NamedTuple

import psutil

from sandcli.envs.base import Outcome, Reset, World
from sandcli.envs.host import serve
from sandcli.errors import MachineryError, PrerequisiteError
from sandcli.records import Step, Task

PROCESS = "sand-environment"
"""The name of every worker process."""

_DEATHS = 3
"""So often may workers die under one call before its unit is given up."""

_SLACK = 4
"""A worker without a task's snapshots takes over when those that have them hold so many episodes more."""

_REMEMBERED = 256
"""Tasks of which the pool knows where their snapshots are."""

_GROWN = 3 * 2**30
"""Bytes of memory at which a worker is replaced, its simulator included."""

_LOOK_EVERY = 200
"""Restored episodes between two looks at a worker's memory."""


class Restored(NamedTuple):
    """An episode brought to a state: how it began, and what each action of the prefix led to."""

    reset: Reset
    outcomes: list[Outcome]


class _WorkerDied(Exception):
    """The worker has to be replaced; `reason` is `environment` or `timeout`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class _Replaced(Exception):
    """The process that an episode lived in is gone; nobody's fault but that of whoever ended it."""


class Pool:
    """Worker processes for one world; an asynchronous context manager.

    `build` makes the world inside a worker and must be picklable. `timeout` is in seconds, for one call.
    """

    def __init__(self, build: Callable[[], World], workers: int, timeout: float) -> None:
        self._world = build()
        self._workers = [_Worker(build, timeout) for _ in range(workers)]
        self._holders: OrderedDict[Task, list[_Worker]] = OrderedDict()

    @property
    def waited(self) -> float:
        """Seconds that episodes waited for an answer, summed over all of them."""
        return sum(worker.waited for worker in self._workers)

    async def __aenter__(self) -> "Pool":
        try:
            await asyncio.gather(*(worker.call("ping") for worker in self._workers))
        except BaseException as error:
            await self.__aexit__(None, None, None)
            if isinstance(error, _WorkerDied):
                raise MachineryError(error.reason, f"the environment does not start: {error}") from error
            raise
        for worker in self._workers:
            worker.waited = 0.0  # starting is not what episodes wait for
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(worker.stop() for worker in self._workers))

    async def restore(self, task: Task, prefix: Sequence[Step] = ()) -> "Session":
        """A new episode in the state after the prefix.

        Raises `MachineryError` with `replay_diverged` where an observation differs from the prefix's own.
        """
        session = Session(self._worker_for(task), task)
        try:
            await session.open(prefix, self._world.same)
        except BaseException:
            await session.close()
            raise
        return session

    async def replay(self, task: Task, actions: Sequence[str]) -> Restored:
        """Run a whole list of actions; it ends early where the episode does."""
        session = await self.restore(task)
        try:
            return Restored(session.reset, [o async for o in session.run(actions)])
        finally:
            await session.close()

    def _worker_for(self, task: Task) -> "_Worker":
        """The one with the fewest episodes among those that hold the task's snapshots, unless others idle."""
        idle = min(self._workers, key=lambda w: w.sessions)
        holders = self._holders.setdefault(task, [idle])
        self._holders.move_to_end(task)
        if len(self._holders) > _REMEMBERED:
            self._holders.popitem(last=False)
        chosen = min(holders, key=lambda w: w.sessions)
        if chosen.sessions > idle.sessions + _SLACK:
            holders.append(idle)
            return idle
        return chosen

    async def expert(self, task: Task, kind: str, seed: int) -> list[str]:
        """What one of the world's experts does for a task."""
        worker = self._worker_for(task)
        worker.sessions += 1
        try:
            _, actions = await _persistently(worker, "expert", task, kind, seed)
        finally:
            worker.sessions -= 1
        return [str(action) for action in actions]


class Session:
    """One episode in the pool; survives the death of its worker."""

    def __init__(self, worker: "_Worker", task: Task) -> None:
        self._worker = worker
        self._worker.sessions += 1
        self._task = task
        self._seen: list[tuple[str, Outcome]] = []
        self._slot = -1
        self._life = -1
        self.reset = Reset("", 0.0)

    @property
    def outcomes(self) -> list[Outcome]:
        """What every action so far led to, the restored prefix included."""
        return [outcome for _, outcome in self._seen]

    @property
    def score(self) -> float:
        """The score where the episode stands."""
        return self._seen[-1][1].score if self._seen else self.reset.score

    @property
    def best(self) -> float:
        """The highest score so far, before the first step included."""
        return max(self.reset.score, *(outcome.score for outcome in self.outcomes), 0.0)

    async def open(self, prefix: Sequence[Step], same: Callable[[str, str], bool]) -> None:
        """Bring the episode into the state after the prefix and hold it against what the prefix recorded."""
        restored = await self._restore([step.action for step in prefix])
        for number, (step, outcome) in enumerate(zip(prefix, restored.outcomes, strict=False)):
            if not same(outcome.observation, step.observation):
                raise diverged(number, step.action, outcome.observation, step.observation)
        if len(restored.outcomes) < len(prefix):
            raise MachineryError("replay_diverged", f"the episode ended at step {len(restored.outcomes)}")
        self.reset = restored.reset
        self._seen = list(zip((step.action for step in prefix), restored.outcomes, strict=True))

    async def step(self, action: str) -> Outcome:
        """Execute one action. `MachineryError` for a step after the end of the episode."""
        if self._seen and self._seen[-1][1].done:
            raise MachineryError("environment", f"{action!r} comes after the end of the episode")
        deaths = 0
        while True:
            try:
                if self._life != self._worker.life:
                    await self._reopen()
                _, answer = await self._worker.call("step", self._slot, action, life=self._life)
            except _Replaced:
                continue
            except _WorkerDied as error:
                deaths += 1
                if deaths == _DEATHS:
                    raise MachineryError(error.reason, str(error)) from error
                continue
            outcome = Outcome(*answer)
            self._seen.append((action, outcome))
            return outcome

    async def run(self, actions: Sequence[str]) -> Any:
        """The outcomes of a list of actions, until the episode ends."""
        for action in actions:
            outcome = await self.step(action)
            yield outcome
            if outcome.done:
                return

    async def close(self) -> None:
        """Give the slot back."""
        self._worker.sessions -= 1
        if self._life == self._worker.life and self._slot >= 0:
            try:
                await self._worker.call("release", self._slot, life=self._life)
            except (_Replaced, _WorkerDied):
                return

    async def _reopen(self) -> None:
        restored = await self._restore([action for action, _ in self._seen])
        if restored.outcomes != self.outcomes:
            raise MachineryError("replay_diverged", "an episode did not replay after its worker was replaced")

    async def _restore(self, actions: list[str]) -> Restored:
        self._life, answer = await _persistently(self._worker, "restore", self._task, actions)
        self._slot, reset, outcomes = answer
        return Restored(Reset(*reset), [Outcome(*outcome) for outcome in outcomes])


def diverged(number: int, action: str, observed: str, recorded: str) -> MachineryError:
    """The error for an observation that is not the recorded one, with the first line that differs."""
    now, then = observed.splitlines(), recorded.splitlines()
    unlike = next((i for i in range(max(len(now), len(then))) if now[i : i + 1] != then[i : i + 1]), 0)
    lines = f"recorded {''.join(then[unlike : unlike + 1])!r}, observed {''.join(now[unlike : unlike + 1])!r}"
    return MachineryError("replay_diverged", f"step {number} ({action}): {lines}")


async def _persistently(worker: "_Worker", operation: str, *arguments: Any) -> tuple[int, Any]:
    for _ in range(_DEATHS):
        try:
            return await worker.call(operation, *arguments)
        except _WorkerDied as error:
            last = error
    raise MachineryError(last.reason, str(last))


class _Worker:
    """The parent's side of one process; `life` counts how often it was started."""

    def __init__(self, build: Callable[[], World], timeout: float) -> None:
        self._build = build
        self._timeout = timeout
        self._thread = ThreadPoolExecutor(1)  # one call at a time
        self._process: Any = None
        self._stopped = False
        self._restored = 0
        self.life = 0
        self.sessions = 0
        self.waited = 0.0

    async def call(self, operation: str, *arguments: Any, life: int | None = None) -> tuple[int, Any]:
        """One request; gives the life of the process that answered, and its answer. (Re)starts the process.

        With `life`, only that process may answer: calls queue up, and it may be gone when this one's turn comes.
        """
        started = time.monotonic()
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._call, operation, arguments, life)
        finally:
            self.waited += time.monotonic() - started

    def _call(self, operation: str, arguments: tuple[Any, ...], life: int | None) -> tuple[int, Any]:
        if life is not None and life != self.life:
            raise _Replaced
        if self._stopped:  # a call that was queued behind the end of the pool must not start a process again
            raise _WorkerDied("environment", "the pool is closed")
        if operation == "restore":
            self._look_at_memory()
        if self._process is None:
            self._start()
        kind, answer = self._asked(operation, arguments)
        if kind == "unavailable":
            raise PrerequisiteError(*answer)
        if kind == "failed":
            raise MachineryError(*answer)
        if kind == "broken":
            raise self._died("environment", str(answer))
        return self.life, answer

    def _asked(self, operation: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
        try:
            self._pipe.send((operation, arguments))
            if not self._pipe.poll(self._timeout):
                raise self._died("timeout", f"no answer to {operation} within {self._timeout:g} s")
            return self._pipe.recv()  # type: ignore[no-any-return]
        except (EOFError, OSError) as error:
            raise self._died("environment", f"the worker process ended during {operation}") from error

    def _look_at_memory(self) -> None:
        """Let go of a process that has grown too big; its episodes will be replayed in the next one."""
        self._restored += 1
        if self._process is None or self._restored % _LOOK_EVERY:
            return
        try:
            process = psutil.Process(self._process.pid)
            size = sum(p.memory_info().rss for p in (process, *process.children(recursive=True)))
        except psutil.Error:  # it is gone: the call that follows will notice
            return
        if size > _GROWN:
            self._end_process()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, self._build), daemon=True, name=PROCESS)
        resource_tracker.ensure_running()  # it unblocks signals when it starts
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited: a Ctrl-C is not for it
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        theirs.close()
        self.life += 1

    def _died(self, reason: str, detail: str) -> _WorkerDied:
        self._process.kill()
        self._end()
        self.life += 1  # no session may take a restarted worker for its own
        return _WorkerDied(reason, detail)

    def _end(self) -> None:
        self._process.join()
        self._pipe.close()
        self._process = None

    async def stop(self) -> None:
        """End the process; its simulator ends with it."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._stop)
        self._thread.shutdown()

    def _stop(self) -> None:
        self._stopped = True
        self._end_process()

    def _end_process(self) -> None:
        self.life += 1
        if self._process is None:
            return
        try:
            self._pipe.send(("stop", ()))
            self._process.join(timeout=20)
        except OSError:
            pass
        self._process.kill()
        self._end()
