"""vLLM's own processes: started apart from ours, heard when they fail, gone when we are.

vLLM computes in processes that it starts itself. Left alone they print to our stdout, are stopped by the Ctrl-C that
lets a stage finish its work, and outlive us when we are killed, with the memory of the GPU in their hands. So they
are started by way of a small script, in an environment of their own.
"""

import logging
import multiprocessing.spawn
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path

from sandcli.cache import cache_folder, keep

_LAUNCHER = """#!/bin/sh
exec "$SAND_VLLM_PYTHON" -ISc '
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: when the thread that started us ends, so do we
os.execv(os.environ["SAND_VLLM_PYTHON"], [os.environ["SAND_VLLM_PYTHON"], *sys.argv[1:]])
' "$@" </dev/null >>"$SAND_VLLM_LOG" 2>&1
"""

_ERROR = re.compile(r"^(?:.*\] )?\s*(?:[a-z_]\w*\.)*(\w*(?:Error|Exception)): (.+)")
"""The last line of a traceback, with or without a logger's prefix."""

_SAYS_NOTHING = re.compile(r"See (?:root cause|stack trace)|initialization failed|EngineCore encountered")

_KILLED = "its process was killed, which the system does when memory runs out"


class Log:
    """What vLLM's processes print: a file in memory, which goes when this process does, however that ends."""

    def __init__(self) -> None:
        self._file = os.memfd_create("vllm")

    @property
    def path(self) -> str:
        """Where other processes of this user find it."""
        return f"/proc/{os.getpid()}/fd/{self._file}"

    def cause(self, error: BaseException) -> str:
        """Why vLLM failed with `error`: the first error in the log that says something, for there it began."""
        for line in self._content().decode(errors="replace").splitlines():
            if (found := _ERROR.match(line)) and not _SAYS_NOTHING.search(line):
                return f"{found[1]}: {found[2]}"
        told = f"{type(error).__name__}: {error}"
        return _KILLED if _SAYS_NOTHING.search(told) else told

    def kept(self) -> Path:
        """The log as a file in the user's cache, for reading after a failure; a later failure replaces it."""
        path = cache_folder() / "vllm.log"
        keep(path, self._content())
        return path

    def close(self) -> None:
        """Let go of it."""
        os.close(self._file)

    def _content(self) -> bytes:
        return os.pread(self._file, 2**24, 0)


@contextmanager
def apart(log: Log, cpu: bool) -> Iterator[None]:
    """What processes vLLM starts in here print goes to `log`, and they end when the thread that is in here does.

    Everything that vLLM and this put into the environment is taken out again.
    """
    resource_tracker.ensure_running()  # it belongs to us, and unblocks signals when it starts
    before, executable = dict(os.environ), multiprocessing.spawn.get_executable()
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited: a Ctrl-C is not for them
    logging.getLogger("vllm").setLevel(logging.CRITICAL)  # what it logs in this process comes as an exception, too
    try:
        for name, value in _environment(cpu).items():
            os.environ.setdefault(name, value)
        os.environ.update(SAND_VLLM_PYTHON=sys.executable, SAND_VLLM_LOG=log.path)
        multiprocessing.spawn.set_executable(str(_launcher()))
        yield
    finally:
        multiprocessing.spawn.set_executable(executable)
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        _restore(before)


def _environment(cpu: bool) -> dict[str, str]:
    """What vLLM is to be told unless the user says otherwise."""
    common = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_CONFIGURE_LOGGING": "0",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a fork of a process with threads may hang
    }
    on_cpu = {
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process instead of two, which halves the time to start
        "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // 2)),  # the other half is for the simulators
    }
    return {**common, **on_cpu} if cpu else common


def _launcher() -> Path:
    """The script that takes Python's place where vLLM starts a process."""
    path = cache_folder() / "vllm-python"
    if not path.exists() or path.read_text() != _LAUNCHER:
        keep(path, _LAUNCHER.encode(), mode=0o700)
    return path


def _restore(before: dict[str, str]) -> None:
    for name in set(os.environ) - set(before):
        del os.environ[name]
    for name, value in before.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
