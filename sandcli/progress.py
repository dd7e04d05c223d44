"""Progress of a stage: a bar with ETA on a terminal, otherwise a line every 30 s. And notices, on stderr."""

import contextlib
import os
import sys
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

from sandcli.terminal import visible


class _Notices(Console):
    """Prints nothing more if its reader has ended, as in `2>&1 | head`; the work continues."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


console = _Notices(stderr=True, highlight=False, markup=False, emoji=False)
"""For everything that is not data; data goes to stdout."""

_INTERVAL = 30.0
"""Seconds between two lines of progress."""


class Bar:
    """Progress of one stage in units."""

    def __init__(self, label: str, total: int, done: int) -> None:
        self._label, self._total, self._done = label, total, done
        self._by = ""
        self._resumed_at = done
        self._started = time.monotonic()
        self._over = threading.Event()
        self._rich: Progress | None = None

    def restart(self, total: int, done: int) -> None:
        """Start over with amounts that were not known before."""
        self._total, self._done, self._resumed_at = total, done, done
        if self._rich is not None:
            self._rich.update(self._rich.task_ids[0], total=total, completed=done)

    def advance(self, units: int = 1, by: str = "") -> None:
        """Count finished units; `by` says who does them."""
        self._done += units
        self._by = f" ({by})" if by else ""
        if self._rich is not None:
            self._rich.update(self._rich.task_ids[0], completed=self._done, description=self._label + self._by)

    def _print_lines(self) -> None:
        while not self._over.wait(_INTERVAL):
            console.print(f"{self._label}{self._by}: {self._done}/{self._total}, {self._remaining()} left")

    def _remaining(self) -> str:
        rate = (self._done - self._resumed_at) / (time.monotonic() - self._started)
        return f"{(self._total - self._done) / rate:.0f} s" if rate else "an unknown time"

    @contextlib.contextmanager
    def display(self) -> Iterator["Bar"]:
        """Show the bar on a terminal, otherwise print a line now and then."""
        if console.is_terminal:
            with Progress(*_columns(), console=console, transient=True) as self._rich:
                self._rich.add_task(self._label, total=self._total, completed=self._done)
                yield self
            self._rich = None
            return
        printer = threading.Thread(target=self._print_lines, daemon=True)
        printer.start()
        try:
            yield self
        finally:
            self._over.set()
            printer.join()


def _columns() -> list[ProgressColumn]:
    return [
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
    ]


def notice(text: str) -> None:
    """Print one line to stderr."""
    console.print(visible(text), soft_wrap=True)
