"""One worker process as its parent sees it: start, request, memory check, replacement."""

import asyncio
import contextlib
import multiprocessing
import os
import pickle
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, TypeVar

import psutil

from sandcli.envs.base import World
from sandcli.envs.worker_process import end_session, serve
from sandcli.errors import MachineryError, PrerequisiteError

PROCESS_NAME = "sand-environment"
"""The name of every worker process."""

MAX_DEATHS = 3
"""A call fails after its worker has died this many times."""

_MAX_MEMORY = 3 * 2**30
"""Bytes, simulator included. A worker that uses more is replaced."""

_MEMORY_CHECK_EVERY = 200
"""Restored episodes between two checks of a worker's memory."""


_STOP_SECONDS = 20.0
"""How long a worker has to stop its simulator."""

T = TypeVar("T")


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
    `restarts` counts the processes that were replaced, by reason.
    """

    def __init__(self, build: Callable[[], World], timeout: float, log: Path) -> None:
        self._build = pickle.dumps(build)
        self._timeout = timeout
        self._log = log
        self._thread = ThreadPoolExecutor(1)  # one call at a time
        self._process: Any = None
        self._stopped = False
        self._restored = 0
        self.generation = 0
        self.sessions = 0
        self.waited = 0.0
        self.replaced = 0
        self.restarts: Counter[str] = Counter()

    async def call(self, operation: str, *arguments: Any, generation: int | None = None) -> tuple[int, Any]:
        """Send one request, starting the process if needed; the generation that answered, and its answer.

        If `generation` is given, only that process may answer. Calls queue, so it may be gone by then: that raises
        `WorkerReplaced`.
        """
        started = time.monotonic()
        try:
            return await self._in_thread(self._call, operation, arguments, generation)
        finally:
            self.waited += time.monotonic() - started

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        try:
            future = asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)
        except RuntimeError as error:  # the machine has too many threads
            raise WorkerDied("environment", f"cannot use a worker process: {error}") from error
        return await future

    async def call_with_restarts(self, operation: str, *arguments: Any) -> tuple[int, Any]:
        """`call`, repeated if the process dies; `MachineryError` after `MAX_DEATHS` deaths.

        An expert that gives no answer in time would give none the next time either: that is `expert`.
        """
        for _ in range(MAX_DEATHS):
            try:
                return await self.call(operation, *arguments)
            except WorkerDied as error:
                last = error
                if operation == "expert" and error.reason == "timeout":
                    raise MachineryError("expert", f"{error}: raise run.timeout, or choose another expert") from error
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
            self.restarts[f"used more than {_MAX_MEMORY / 2**30:g} GiB of memory"] += 1
            self._stop_process()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        pipe, theirs = context.Pipe()
        arguments = (theirs, str(self._log), self._build)
        process = context.Process(target=serve, args=arguments, daemon=True, name=PROCESS_NAME)
        try:
            _start_without_interrupts(process)
        except OSError as error:  # the machine has too many processes, or too little memory
            pipe.close()
            why = os.strerror(error.errno or 0)
            raise WorkerDied("environment", f"cannot start a worker process: {why}") from error
        finally:
            theirs.close()
        self._pipe, self._process = pipe, process
        self.generation += 1

    def _died(self, reason: str, detail: str) -> WorkerDied:
        self._forget_process()
        self.generation += 1  # no episode may mistake the next process for its own
        self.restarts[detail] += 1
        return WorkerDied(reason, detail)

    def break_off(self) -> None:
        """Kill the process, from another thread than its own: the call in progress fails."""
        process = self._process
        if process is not None:
            process.kill()

    def _forget_process(self) -> None:
        """Kill the process and everything that it started."""
        end_session(self._process.pid)
        self._process.kill()
        self._process.join()
        self._pipe.close()
        self._process = None

    async def stop(self) -> None:
        """Stop the process and its simulator."""
        with contextlib.suppress(WorkerDied):  # it never had a process
            await self._in_thread(self._stop)
        self._thread.shutdown()

    def _stop(self) -> None:
        self._stopped = True
        self._stop_process()

    def _stop_process(self) -> None:
        self.generation += 1
        if self._process is None:
            return
        with contextlib.suppress(OSError):
            self._pipe.send(("stop", ()))
            self._pipe.poll(_STOP_SECONDS)
        self._forget_process()


def _start_without_interrupts(process: Any) -> None:
    """Start a process that Ctrl-C does not reach, not even before it ignores the signal itself."""
    resource_tracker.ensure_running()  # start it first: its start unblocks signals
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the child inherits this
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
