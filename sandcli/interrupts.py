"""Ctrl-C once lets a stage finish what it has begun; twice ends the process at once. SIGTERM counts the same."""

import os
import signal
import time
from types import FrameType
from typing import Any

from sandcli.errors import Exit
from sandcli.progress import console, notice

_ECHO = 0.5
"""Seconds in which a launcher passes on what the terminal has told its processes already."""


class Interrupts:
    """While entered, `asked` tells whether the stage should come to an end.

    `launched`: this process was started by a launcher, whose echo of a signal is no second one.
    """

    def __init__(self, launched: bool = False) -> None:
        self._echo = _ECHO if launched else 0.0
        self.asked = False
        self._first = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interrupts":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.asked and time.monotonic() - self._first < self._echo:
            return
        if self.asked:
            console.show_cursor(True)
            os._exit(Exit.INTERRUPTED)  # what is recorded is on disk, and workers notice that we are gone
        self.asked, self._first = True, time.monotonic()
        notice("finishing what is in flight; interrupt again to stop at once (nothing recorded is lost)")
