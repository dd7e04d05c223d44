"""What a person sees while a stage works: a bar with ETA on a terminal, a line every 30 s elsewhere."""

import contextlib
import threading
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True, highlight=False)
"""Chatter goes to stderr; data to stdout."""

_INTERVAL = 30.0


class Bar:
    """Progress of one stage in units."""

    def __init__(self, label: str, total: int, done: int) -> None:
        self._label, self._total, self._done = label, total, done
        self._before = done
        self._started = time.monotonic()
        self._over = threading.Event()
        self._rich: Progress | None = None

    def restart(self, total: int, done: int) -> None:
        """The amount of work is known only now."""
        self._total, self._done, self._before = total, done, done
        if self._rich is not None:
            self._rich.update(self._rich.task_ids[0], total=total, completed=done)

    def advance(self, units: int = 1) -> None:
        """Some units are finished."""
        self._done += units
        if self._rich is not None:
            self._rich.update(self._rich.task_ids[0], completed=self._done)

    def _say(self) -> None:
        while not self._over.wait(_INTERVAL):
            console.print(f"{self._label}: {self._done}/{self._total}, {self._remaining()} left")

    def _remaining(self) -> str:
        rate = (self._done - self._before) / (time.monotonic() - self._started)
        return f"{(self._total - self._done) / rate:.0f} s" if rate else "an unknown time"

    @contextlib.contextmanager
    def shown(self) -> Iterator["Bar"]:
        """Draw the bar where there is a terminal; elsewhere say now and then how far it is."""
        if console.is_terminal:
            with Progress(*_columns(), console=console, transient=True) as self._rich:
                self._rich.add_task(self._label, total=self._total, completed=self._done)
                yield self
            self._rich = None
            return
        speaker = threading.Thread(target=self._say, daemon=True)
        speaker.start()
        try:
            yield self
        finally:
            self._over.set()
            speaker.join()


def _columns() -> list[ProgressColumn]:
    return [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
    ]


def notice(text: str) -> None:
    """One line of chatter."""
    console.print(text, markup=False, soft_wrap=True)
