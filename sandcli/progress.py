"""What a person sees while a stage works: a bar with ETA on a terminal, a line every 30 s elsewhere."""

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
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
        self._started = self._said = time.monotonic()
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
        elif time.monotonic() - self._said >= _INTERVAL:
            self._said = time.monotonic()
            console.print(f"{self._label}: {self._done}/{self._total}, {self._remaining()} left")

    def _remaining(self) -> str:
        rate = (self._done - self._before) / (time.monotonic() - self._started)
        return f"{(self._total - self._done) / rate:.0f} s" if rate else "an unknown time"

    @contextlib.contextmanager
    def shown(self) -> Iterator["Bar"]:
        """Draw the bar where there is a terminal."""
        if not console.is_terminal:
            yield self
            return
        columns = [
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
        ]
        with Progress(*columns, console=console, transient=True) as self._rich:
            self._rich.add_task(self._label, total=self._total, completed=self._done)
            yield self
        self._rich = None


def notice(text: str) -> None:
    """One line of chatter."""
    console.print(text, markup=False, soft_wrap=True)
