"""Several nodes that train together: each runs the same command, and all end when one of them fails or is lost.

They meet in one of torch's key-value stores, on the first node. That one leads: it alone decides what to do, holds the
lock and writes. The others must want the same training; they do their share of it, and end with the first one.
"""

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psutil

from sandcli.errors import Exit, Interrupted, PrerequisiteError, SandError, UsageError
from sandcli.progress import notice

START = 600.0
"""Seconds that nodes wait for one another when they start."""

LOST = 30.0
"""Seconds without a sign of life after which a node counts as lost."""

_BEAT = 0.5
"""Seconds between two signs of life."""

_BEGIN, _END, _ENDED = "begin", "end", b"ended"
"""Keys of the first node's job and of the end of all; the last sign of life of a node that knows of the end."""


class About(msgspec.Struct, frozen=True):
    """A node: the name of its host, and everything that must be the same on all nodes."""

    host: str
    same: Mapping[str, str]


class Problem(msgspec.Struct, frozen=True):
    """Why all nodes end; `what` is empty if everything is done."""

    what: str = ""
    fix: str = ""
    exit: int = Exit.DONE

    def error(self) -> SandError:
        """The error to raise."""
        error = SandError(self.what, self.fix)
        error.exit = Exit(self.exit)
        return error


class Place(NamedTuple):
    """Where the processes of a node are among all: the node's number, and the address of the first one."""

    node: int
    nodes: int
    host: str
    port: int


class Nodes:
    """The nodes as one of them sees them, a context manager; `first` is the address of the first one, as HOST:PORT.

    A thread speaks with the store. It may wait in vain if the network fails, so the main thread never does.
    """

    def __init__(self, label: str, number: int, first: str, stop: Callable[[], bool]) -> None:
        """Raises `UsageError` for an address that is none."""
        host, _, port = first.rpartition(":")
        if not host or not port.isdecimal():
            raise UsageError(f"trainer.first_node is {first!r}", "name one of the nodes as HOST:PORT, on all of them")
        self._label, self._number, self._stop = label, number, stop
        self._host, self._port = host.strip("[]"), int(port)
        self.leads = _is_here(self._host)
        self.node = 0
        self._end_file: Path | None = None
        self.problem: SandError | None = None
        self._to_say: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        self._heard: dict[str, bytes] = {}
        self._beats: dict[int, tuple[bytes, float]] = {}
        self._gone: set[int] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)

    def __enter__(self) -> "Nodes":
        """Find the first node. Raises `PrerequisiteError` if it does not come, or if there are enough nodes already."""
        self._store = self._connected()
        self.node = 0 if self.leads else self._store.add("nodes", 1)
        if self.node >= self._number:
            raise PrerequisiteError(
                f"{self._number} nodes train already, and {socket.gethostname()} is one more",
                "wait until they have ended, or raise trainer.nodes on all of them",
            )
        self._thread.start()
        return self

    def _connected(self) -> Any:
        from datetime import timedelta

        from torch.distributed import DistNetworkError, PrefixStore, TCPStore

        deadline = time.monotonic() + START
        while True:
            try:  # briefly: nobody can interrupt it
                wait = timedelta(seconds=2)
                store = TCPStore(self._host, self._port, None, self.leads, wait, wait_for_workers=False)
                store.set_timeout(timedelta(seconds=LOST))
                return PrefixStore("sand", store)
            except (DistNetworkError, TimeoutError) as error:
                if self.leads or time.monotonic() > deadline:
                    raise PrerequisiteError(
                        f"{'cannot listen' if self.leads else 'nobody answers'} at {self._host}, port {self._port}: "
                        f"{str(error).splitlines()[0]}",
                        "start the same command on every node; trainer.first_node must be an address of one of them",
                    ) from None
            self._must_go_on()

    def agree(self, same: Mapping[str, str]) -> None:
        """Wait for all nodes. Raises `PrerequisiteError` for one that does not come, or that wants anything else."""
        me = About(socket.gethostname(), same)
        self._heard[f"about/{self.node}"] = msgspec.json.encode(me)
        self._say(f"about/{self.node}", me)
        if not self.leads:
            return
        notice(f"waiting for {self._number - 1} more of {self._number} nodes")
        deadline = time.monotonic() + START
        while len(self._known()) < self._number:
            self._must_go_on()
            if time.monotonic() > deadline:
                came = ", ".join(about.host for about in self._known().values())
                raise PrerequisiteError(
                    f"only {len(self._known())} of {self._number} nodes came within {START:.0f} s: {came}",
                    "start the same command on every node, and see the output there",
                )
            time.sleep(0.1)
        for node, about in self._known().items():
            self._must_be_same(node, about)

    def _must_be_same(self, node: int, about: About) -> None:
        first = self._known()[0]
        for name in sorted(first.same.keys() | about.same.keys()):
            here, there = first.same.get(name, "missing"), about.same.get(name, "missing")
            if here != there:
                raise PrerequisiteError(
                    f"{about.host} differs from {first.host}: {name} is {there} there and {here} here",
                    "make them the same, then run the command again on every node",
                )

    def begin(self, mark: str) -> None:
        """On the first node: there is a job; `mark` is in a file that all must see."""
        self._must_go_on()
        self._say(_BEGIN, mark)

    def await_begin(self) -> str | None:
        """On the others: the mark, or None if there is nothing to do. Raises what ended the first node."""
        while _BEGIN not in self._heard and _END not in self._heard:
            self._must_go_on()
            time.sleep(0.1)
        self._must_go_on()
        return msgspec.json.decode(self._heard[_BEGIN], type=str) if _BEGIN in self._heard else None

    def watched_by(self, file: Path) -> Place:
        """Where this node's processes are among all. If all have to end, `file` is made, which those watch."""
        self._end_file = file
        self._tell_processes()
        return Place(self.node, self._number, self._host, self._port)

    def _must_go_on(self) -> None:
        """Raise what ends all nodes, or `Interrupted` if the user asked to stop."""
        if self.problem is not None:
            raise self.problem
        if self._stop():
            raise Interrupted(self._label)

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Tell the others about an error, or wait for the first node; that one ends last, since it has the store."""
        together = isinstance(error, Interrupted) and _BEGIN in self._heard  # the processes told one another
        if self.problem is None and (self.leads or (error is not None and not together)):
            self._say(_END, _problem(error, "" if self.leads else socket.gethostname()))
        while not self._over.is_set():
            time.sleep(0.1)
        if error is None and self.problem is not None:
            raise self.problem

    # The thread

    def _live(self) -> None:
        """Tell the others that this node lives, say and hear what there is, until all have heard of the end."""
        beats = count()
        while not self._over.is_set():
            watchdog = threading.Timer(LOST, self._lost, [[0]])
            watchdog.daemon = True
            watchdog.start()
            try:
                self._round(str(next(beats)).encode())
            except RuntimeError:  # of the store: the first node is gone
                self._lost([0])
            finally:
                watchdog.cancel()
            self._over.wait(_BEAT)

    def _round(self, beat: bytes) -> None:
        ended = _END in self._heard
        self._store.set(f"beat/{self.node}", _ENDED if ended else beat)
        while not self._to_say.empty():
            self._store.set(*self._to_say.get())
        for key in (*(f"about/{node}" for node in range(self._number)), _BEGIN, _END):
            if key not in self._heard and self._store.check([key]):
                self._heard[key] = self._store.get(key)
        if self.leads:
            self._look_for_lost()
        if _END in self._heard:
            self._end(msgspec.json.decode(self._heard[_END], type=Problem))
        if ended and (not self.leads or self._known().keys() - {0} <= self._gone):
            self._over.set()

    def _look_for_lost(self) -> None:
        lost = []
        for node in self._known().keys() - {0} - self._gone:
            beat, now = self._store.get(f"beat/{node}"), time.monotonic()
            before, since = self._beats.get(node, (b"", now))
            self._beats[node] = (beat, now if beat != before else since)
            if beat == _ENDED:
                self._gone.add(node)
            elif now - self._beats[node][1] > LOST:
                lost.append(node)
        if lost:
            self._gone.update(lost)
            self._lost(lost)

    def _lost(self, nodes: list[int]) -> None:
        """End because of lost nodes. Without the first one nobody else can be told."""
        known = self._known()
        hosts = [known[node].host if node in known else self._host for node in nodes]
        problem = Problem(
            f"lost {', '.join(hosts)}: killed, or down, or unreachable for {LOST:.0f} s",
            "see the output there, then run the same command on every node: it resumes from the last checkpoint",
            Exit.PREREQUISITE,
        )
        if _END not in self._heard:
            self._say(_END, problem)
            self._end(problem)
        if 0 in nodes:
            self._over.set()

    def _end(self, problem: Problem) -> None:
        if problem.what and self.problem is None:
            self.problem = problem.error()
            self._tell_processes()

    def _tell_processes(self) -> None:
        if self.problem is not None and self._end_file is not None:
            with contextlib.suppress(FileNotFoundError):  # they have ended
                self._end_file.touch()

    def _say(self, key: str, value: Any) -> None:
        self._to_say.put((key, msgspec.json.encode(value)))

    def _known(self) -> dict[int, About]:
        keys = ((node, f"about/{node}") for node in range(self._number))
        return {node: msgspec.json.decode(self._heard[key], type=About) for node, key in keys if key in self._heard}


def _problem(error: BaseException | None, host: str) -> Problem:
    """An error as the other nodes are told; `host` has it, or is "" for the first node."""
    if error is None:
        return Problem()
    where = f"{host}: " if host else ""
    if isinstance(error, SandError):
        return Problem(where + error.what, error.fix, error.exit)
    why = " ".join(f"{type(error).__name__}: {error}".split())
    return Problem(where + why, "see the output there", Exit.INTERNAL)


def _is_here(host: str) -> bool:
    """Whether a name or an address is this machine's. Raises `PrerequisiteError` if nobody has it."""
    try:
        found = {str(known[4][0]).partition("%")[0] for known in socket.getaddrinfo(host, None)}
    except OSError as error:
        raise PrerequisiteError(f"there is no host {host}: {error.strerror}", "correct trainer.first_node") from error
    here = {each.address.partition("%")[0] for each in chain(*psutil.net_if_addrs().values())}
    return any(ip_address(address).is_loopback for address in found) or not found.isdisjoint(here)
