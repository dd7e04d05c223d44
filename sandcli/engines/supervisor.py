"""Runs a command and ends it, with all processes that it started, when our parent goes away.

`python supervisor.py COMMAND...` is started with a pipe as stdin. The kernel closes that pipe however the parent ends,
even if it is killed. This file imports nothing of the package, so that it starts fast.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time

_GRACE_SECONDS = 10.0
"""The time between SIGTERM and SIGKILL."""


def main() -> int:
    """Wait until the command or the parent ends, then end what is left; returns the command's exit status."""
    command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, process_group=0)
    ended, end = os.pipe()
    threading.Thread(target=_close_after, args=(command, end), daemon=True).start()
    select.select([sys.stdin, ended], [], [])
    _signal(command.pid, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_SECONDS
    while _is_alive(command) and time.monotonic() < deadline:
        time.sleep(0.05)
    _signal(command.pid, signal.SIGKILL)
    return command.wait()


def _close_after(command: "subprocess.Popen[bytes]", end: int) -> None:
    """Close one end of a pipe when the command ends, so that the other end becomes readable."""
    command.wait()
    os.close(end)


def _is_alive(command: "subprocess.Popen[bytes]") -> bool:
    """Whether any process of the command's group is left."""
    command.poll()  # a zombie would count
    try:
        os.killpg(command.pid, 0)
    except ProcessLookupError:
        return False
    return True


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main())
