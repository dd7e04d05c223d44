"""One worker process, as its parent sees it: started, asked, watched, replaced."""

import asyncio
import multiprocessing
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import resource_tracker
from typing import Any

import psutil

from sandcli.envs.base import World
from sandcli.envs.worker_process import serve
from sandcli.errors import MachineryError, PrerequisiteError

PROCESS = "sand-environment"
"""The name of every worker process."""

DEATHS = 3
"""So often may workers die under one call before its unit is given up."""

_GROWN = 3 * 2**30
"""Bytes of memory at which a worker is replaced, its simulator included."""

_LOOK_EVERY = 200
"""Restored episodes between two looks at a worker's memory."""


class WorkerDied(Exception):
    """The worker has to be replaced; `reason` is `environment` or `timeout`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Replaced(Exception):
    """The process that an episode lived in is gone; nobody's fault but that of whoever ended it."""


class Worker:
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

    async def persistently(self, operation: str, *arguments: Any) -> tuple[int, Any]:
        """`call`, again where the process dies; `MachineryError` after `DEATHS` times."""
        for _ in range(DEATHS):
            try:
                return await self.call(operation, *arguments)
            except WorkerDied as error:
                last = error
        raise MachineryError(last.reason, str(last))

    def _call(self, operation: str, arguments: tuple[Any, ...], life: int | None) -> tuple[int, Any]:
        if life is not None and life != self.life:
            raise Replaced
        if self._stopped:  # a call that was queued behind the end of the pool must not start a process again
            raise WorkerDied("environment", "the pool is closed")
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

    def _died(self, reason: str, detail: str) -> WorkerDied:
        self._process.kill()
        self._end()
        self.life += 1  # no session may take a restarted worker for its own
        return WorkerDied(reason, detail)

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
