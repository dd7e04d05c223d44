"""One worker process as its parent sees it: start, request, memory check, replacement."""

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

PROCESS_NAME = "sand-environment"
"""The name of every worker process."""

MAX_DEATHS = 3
"""A call fails after its worker has died this many times."""

_MAX_MEMORY = 3 * 2**30
"""Bytes, simulator included. A worker that uses more is replaced."""

_MEMORY_CHECK_EVERY = 200
"""Restored episodes between two checks of a worker's memory."""


class WorkerDied(Exception):
    """The worker must be replaced; `reason` is `environment` or `timeout`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class WorkerReplaced(Exception):
    """The episode's process is gone, and this call did not cause that."""


class Worker:
    """The parent's side of one worker process.

    `generation` changes whenever the process starts or ends, so an episode can tell that its process is gone.
    """

    def __init__(self, build: Callable[[], World], timeout: float) -> None:
        self._build = build
        self._timeout = timeout
        self._thread = ThreadPoolExecutor(1)  # one call at a time
        self._process: Any = None
        self._stopped = False
        self._restored = 0
        self.generation = 0
        self.sessions = 0
        self.waited = 0.0
        self.replaced = 0

    async def call(self, operation: str, *arguments: Any, generation: int | None = None) -> tuple[int, Any]:
        """Send one request, starting the process if needed; the generation that answered, and its answer.

        If `generation` is given, only that process may answer. Calls queue, so it may be gone by then: that raises
        `WorkerReplaced`.
        """
        started = time.monotonic()
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._call, operation, arguments, generation)
        finally:
            self.waited += time.monotonic() - started

    async def call_with_restarts(self, operation: str, *arguments: Any) -> tuple[int, Any]:
        """`call`, repeated if the process dies; `MachineryError` after `MAX_DEATHS` deaths."""
        for _ in range(MAX_DEATHS):
            try:
                return await self.call(operation, *arguments)
            except WorkerDied as error:
                last = error
        raise MachineryError(last.reason, str(last))

    def _call(self, operation: str, arguments: tuple[Any, ...], generation: int | None) -> tuple[int, Any]:
        if generation is not None and generation != self.generation:
            raise WorkerReplaced
        if self._stopped:  # this call was queued when the pool closed; it must not start a new process
            raise WorkerDied("environment", "the pool is closed")
        if operation == "restore":
            self._check_memory()
        if self._process is None:
            self._start()
        kind, answer = self._request(operation, arguments)
        if kind == "unavailable":
            raise PrerequisiteError(*answer)
        if kind == "failed":
            raise MachineryError(*answer)
        if kind == "broken":
            raise self._died("environment", str(answer))
        return self.generation, answer

    def _request(self, operation: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
        try:
            self._pipe.send((operation, arguments))
            if not self._pipe.poll(self._timeout):
                raise self._died("timeout", f"no answer to {operation} within {self._timeout:g} s")
            return self._pipe.recv()  # type: ignore[no-any-return]
        except (EOFError, OSError) as error:
            raise self._died("environment", f"the worker process ended during {operation}") from error

    def _check_memory(self) -> None:
        """Stop a process that has grown too big; its episodes are replayed in the next one."""
        self._restored += 1
        if self._process is None or self._restored % _MEMORY_CHECK_EVERY:
            return
        try:
            process = psutil.Process(self._process.pid)
            size = sum(p.memory_info().rss for p in (process, *process.children(recursive=True)))
        except psutil.Error:  # the process is gone; the call that follows will notice
            return
        if size > _MAX_MEMORY:
            self._stop_process()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, self._build), daemon=True, name=PROCESS_NAME)
        resource_tracker.ensure_running()  # start it first: its start unblocks signals
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the child inherits this: no Ctrl-C
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        theirs.close()
        self.generation += 1

    def _died(self, reason: str, detail: str) -> WorkerDied:
        self._process.kill()
        self._forget_process()
        self.generation += 1  # no episode may mistake the next process for its own
        return WorkerDied(reason, detail)

    def _forget_process(self) -> None:
        self._process.join()
        self._pipe.close()
        self._process = None

    async def stop(self) -> None:
        """Stop the process and its simulator."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._stop)
        self._thread.shutdown()

    def _stop(self) -> None:
        self._stopped = True
        self._stop_process()

    def _stop_process(self) -> None:
        self.generation += 1
        if self._process is None:
            return
        try:
            self._pipe.send(("stop", ()))
            self._process.join(timeout=20)
        except OSError:
            pass
        self._process.kill()
        self._forget_process()
