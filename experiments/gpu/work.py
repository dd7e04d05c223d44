"""Makes an experiment in slices that end within a given time: python -m experiments.gpu.work PLAN --run DIR.

Further options go to `sand experiment`. The exit code says how it stands: 0, every run of the plan is done; 75, there
is more to do, so call it again; 130, you interrupted it; any other is that of `sand`, which failed.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import NamedTuple

from sandcli.errors import Exit

MORE = 75
"""The exit code if a slice ended before the experiment did."""


class Times(NamedTuple):
    """Seconds from the start of a slice: ask to finish what is in progress, end at once, kill."""

    ask: float
    end: float
    kill: float


def times(minutes: float, grace: float) -> Times:
    """The times of a slice of so many minutes, whose last `grace` seconds are for finishing what is in progress."""
    whole = minutes * 60
    grace = min(grace, whole)
    return Times(whole - grace, whole - grace / 4, whole)


class Slice:
    """A command that is interrupted at its time, or when this process is."""

    def __init__(self, command: Sequence[str], limits: Times) -> None:
        self._command = command
        self._limits = limits
        self._started = time.monotonic()
        self._asked = False
        self._stopped = False

    def run(self) -> int:
        """Run the command; returns 0, `MORE`, `Exit.INTERRUPTED` if the user stopped it, or the code of its failure."""
        offline = {"HF_HUB_OFFLINE": "1", **os.environ}
        with subprocess.Popen(self._command, env=offline, start_new_session=True) as child:
            self._child = child
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._ask_early)
            code = self._wait()
        if code == Exit.INTERRUPTED or (self._asked and code < 0):
            return Exit.INTERRUPTED if self._stopped else MORE
        return code if code >= 0 else Exit.FAILED_UNITS

    def _wait(self) -> int:
        """Wait for the end of the command, and interrupt it at its times; like Ctrl-C, for all its processes."""
        for limit, number in zip(self._limits, (signal.SIGINT, signal.SIGINT, signal.SIGKILL), strict=True):
            try:
                return self._child.wait(max(0.0, self._started + limit - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._send(number)
        return self._child.wait()

    def _send(self, number: signal.Signals) -> None:
        self._asked = True
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.killpg(self._child.pid, number)

    def _ask_early(self, number: int, frame: FrameType | None) -> None:
        """This process was interrupted: so is the command, and no further slice is wanted."""
        self._stopped = True
        self._send(signal.SIGINT)


def main() -> int:
    """Run a slice of the experiment that the command line names; returns the exit code."""
    parser = argparse.ArgumentParser(description="Make an experiment in slices that end within a given time.")
    parser.add_argument("plan")
    parser.add_argument("--run", required=True, help="the folder of the experiment")
    parser.add_argument("--minutes", type=float, default=9.0, help="the longest that a slice may take (9)")
    parser.add_argument("--grace", type=float, default=120.0, help="seconds of it to finish what is in progress (120)")
    given, others = parser.parse_known_args()
    if given.minutes <= 0 or given.grace <= 0:
        parser.error("--minutes and --grace must be above 0")
    command = [sys.executable, "-m", "sandcli", "experiment", given.plan, "--run", given.run, *others]
    code = Slice(command, times(given.minutes, given.grace)).run()
    if code == MORE:
        print("there is more to do: run the same command again", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
