"""Ctrl-C once lets a stage finish what it has begun; twice ends the process at once. SIGTERM counts the same.

Only the command line, and processes that we start ourselves, install signal handlers. A library user who wants the
same sets `stop` to a function of their own.
"""

import os
import signal
import time
from collections.abc import Callable
from contextvars import ContextVar
from types import FrameType
from typing import Any

from sandcli.errors import Exit
from sandcli.progress import console, notice

_ECHO = 0.5
"""Seconds within which a launcher passes on a signal that its processes already got from the terminal."""


def never() -> bool:
    """The `stop` of a caller that does not interrupt."""
    return False


stop: ContextVar[Callable[[], bool]] = ContextVar("stop", default=never)
"""Asked by stages between units: whether to finish what is in progress and raise `Interrupted`."""


class Interrupts:
    """While entered, `asked` says whether the stage should end.

    `launched`: a launcher started this process, so the signal that it passes on does not count twice.
    """

    def __init__(self, launched: bool = False) -> None:
        self._echo = _ECHO if launched else 0.0
        self.asked = False
        self._first = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interrupts":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._hear)
        self._token = stop.set(lambda: self.asked)
        return self

    def __exit__(self, *_: object) -> None:
        stop.reset(self._token)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.asked and time.monotonic() - self._first < self._echo:
            return
        if self.asked:
            console.show_cursor(True)
            os._exit(Exit.INTERRUPTED)  # what is recorded is on disk, and workers notice that this process is gone
        self.asked, self._first = True, time.monotonic()
        notice("finishing what is in progress; interrupt again to stop at once (nothing recorded is lost)")
