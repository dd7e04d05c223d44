"""Joining a Ray cluster as its driver."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import ray

from sandcli.errors import PrerequisiteError
from sandcli.progress import notice

_CONNECT = 10.0
"""Seconds to wait for an address: Ray itself would wait for hours."""

_START = "start a cluster with `ray start --head`, or use --cluster local"
_OTHER_VERSION = "ersion mismatch"


@asynccontextmanager
async def joined(address: str) -> AsyncIterator[None]:
    """This process as a driver of the cluster at `address` (see `cluster.address`), which it leaves afterwards.

    A caller that has joined a cluster already stays in that one. Raises `PrerequisiteError` if there is no cluster, or
    one with other versions of Ray or Python.
    """
    if ray.is_initialized():
        notice(f"this process is part of a Ray cluster already, which is used instead of {address}")
        yield
        return
    await asyncio.to_thread(_join, address)  # in the main thread Ray would replace our signal handlers
    try:
        yield
    finally:
        ray.shutdown()


def _join(address: str) -> None:
    local = address == "local"
    if address not in ("auto", "local"):
        _must_answer(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    dashboard = {"include_dashboard": False} if local else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error", **dashboard)
    except Exception as error:  # some are of no class of their own
        with suppress(Exception):
            ray.shutdown()
        why = " ".join(str(error).split())
        start = "run the same command again" if local else f"on this machine: ray start --address {address}"
        fix = "install the same versions on all nodes" if _OTHER_VERSION in why else start
        raise PrerequisiteError(f"--cluster {address}: {why}", fix if address != "auto" else _START) from None


def _must_answer(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT).close()
    except (OSError, ValueError) as error:
        raise PrerequisiteError(f"--cluster {address}: nothing answers there ({error})", _START) from None
