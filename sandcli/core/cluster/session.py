"""Joining a Ray cluster as its driver."""

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator

import ray

from sandcli.errors import PrerequisiteError, UsageError

_CONNECT = 10.0
"""Seconds to wait for an address: Ray itself would wait for hours."""


@contextlib.contextmanager
def joined(address: str) -> Iterator[None]:
    """This process as a driver of the cluster at `address` (see `cluster.address`), which it leaves afterwards.

    A caller that has joined a cluster already stays in that one. Raises `UsageError` for an address of another form and
    `PrerequisiteError` if there is no cluster, or one with other versions of Ray or Python.
    """
    if ray.is_initialized():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with contextlib.redirect_stdout(sys.stderr):  # Ray prints errors to stdout, where data belongs
        _join(address)
        with contextlib.suppress(ValueError):  # not the main thread: Ray installed no handlers either
            for number, handler in handlers.items():
                signal.signal(number, handler)
        try:
            yield
        finally:
            ray.shutdown()


def _join(address: str) -> None:
    if address not in ("auto", "local"):
        _must_answer(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error", include_dashboard=_dashboard(address))
    except (ConnectionError, RuntimeError, ValueError) as error:
        why = " ".join(str(error).split())
        fix = "install the same versions on all nodes" if "ersion mismatch" in why else _START
        raise PrerequisiteError(f"--cluster {address}: {why}", fix) from None


_START = "start one with `ray start --head`, or use --cluster local"


def _dashboard(address: str) -> bool | None:
    return False if address == "local" else None


def _must_answer(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and "/" not in host):
        raise UsageError(
            f"--cluster {address}: this is not the address of a Ray cluster",
            "use auto, local, or HOST:PORT (not ray://)",
        )
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT).close()
    except OSError as error:
        raise PrerequisiteError(f"--cluster {address}: nothing answers there ({error})", _START) from None
