"""The inside of a worker process: one simulator, its episodes by slot, and the loop that answers the pool."""

import contextlib
import multiprocessing
import os
import pickle
import reprlib
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing import connection
from typing import Any, TypeVar

import msgspec
import psutil

from sandcli.envs.base import Environment, Outcome, Reset, Simulator, World
from sandcli.envs.snapshots import Snapshot, Snapshots
from sandcli.errors import MachineryError, SandError
from sandcli.records import Task

T = TypeVar("T")

_GRACE_SECONDS = 5.0
"""How long a worker has to stop its simulator after its parent is gone."""


def serve(pipe: connection.Connection, log: str, build: bytes) -> None:
    """The main loop of a worker process: answer requests until the parent sends `stop` or is gone.

    `build` is the pickled call that makes the world. The output of the world and its programs goes to the file `log`.
    """
    os.setsid()  # Ctrl-C is for the parent alone, which lets episodes finish
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _print_to(log)
    threading.Thread(target=_end_after_parent, daemon=True).start()
    worker = WorkerProcess(lambda: pickle.loads(build)())
    try:
        _answer_requests(pipe, worker)
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the parent is gone
        _close(worker)
        end_session(os.getpid())


def _print_to(log: str) -> None:
    """Send all output of this process to a file. Programs that the world starts inherit this, and have no input."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (file, 1), (file, 2)):
        os.dup2(source, target)
    sys.stdout = sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115


def _end_after_parent() -> None:
    """End this process and what it started if the parent is gone and this process is too busy or stuck to notice."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        time.sleep(_GRACE_SECONDS)
        end_session(os.getpid())


def end_session(leader: int) -> None:
    """Kill a worker process and the programs that it, its world and its simulator started."""
    started: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        started = psutil.Process(leader).children(recursive=True)  # some may have a session of their own
    for process in started:
        with contextlib.suppress(psutil.Error):
            process.kill()
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it may have no session of its own yet
        os.killpg(leader, signal.SIGKILL)


def _answer_requests(pipe: connection.Connection, worker: "WorkerProcess") -> None:
    while True:
        operation, arguments = pipe.recv()
        if operation == "stop":
            _close(worker)
            pipe.send(("ok", None))
            return
        try:
            answer = _answer(worker, operation, arguments)
        except SandError as error:
            answer = "unavailable", (error.what, error.fix)
        except Exception as error:  # the simulator can no longer be trusted: the parent replaces this process
            traceback.print_exc()
            answer = "broken", f"{type(error).__name__}: {error}".splitlines()[0]
        pipe.send(answer)


def _close(worker: "WorkerProcess") -> None:
    try:
        worker.close()
    except Exception:  # it ends anyway
        traceback.print_exc()


def _answer(worker: "WorkerProcess", operation: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
    """Run one operation. A `MachineryError` fails this episode only; the worker's other episodes continue."""
    try:
        return "ok", getattr(worker, operation)(*arguments)
    except MachineryError as error:
        return "failed", (error.reason, error.detail)


def checked(what: str, answer: Any, kind: type[T]) -> T:
    """A world's answer, if it has the right type. Raises `MachineryError` otherwise, which fails only this episode."""
    plain = tuple(answer) if isinstance(answer, tuple) else answer  # msgspec would trust a named tuple
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        raise MachineryError("environment", f"{what} gave {reprlib.repr(answer)}: {error}") from None


class WorkerProcess:
    """The simulator and episodes of one worker process. A pool may call its public methods as operations."""

    def __init__(self, build: Callable[[], World], simulator: Simulator | None = None) -> None:
        self._build = build
        self._simulator = simulator
        self._episodes: dict[int, Environment] = {}
        self._last_slot = 0
        self._snapshots = Snapshots()
        self._can_fork = True

    def ping(self) -> str:
        """Start the simulator if it is not running."""
        self._running_simulator()
        return "ready"

    def _running_simulator(self) -> Simulator:
        if self._simulator is None:
            self._simulator = self._build().start()
        return self._simulator

    def restore(self, task: Task, actions: list[str]) -> tuple[int, Reset, list[Outcome]]:
        """A new episode in the state after some actions, or at its end if it ends before that."""
        environment, outcomes = self._reach(task, actions)
        reset = reset_of(environment)
        self._last_slot += 1
        self._episodes[self._last_slot] = environment
        return self._last_slot, reset, outcomes

    def _reach(self, task: Task, actions: list[str]) -> tuple[Environment, list[Outcome]]:
        """Fork the nearest snapshot and replay the rest of the actions; snapshot the state that they reach."""
        nearest = self._snapshots.nearest(task, actions)
        environment = nearest.environment.fork() if nearest else None
        if nearest is None or environment is None:
            nearest = Snapshot((), (), environment := self._open(task))
        try:
            outcomes = _replay(environment, nearest.outcomes, actions)
            self._add_snapshot(task, Snapshot(tuple(actions[: len(outcomes)]), tuple(outcomes), environment))
        except BaseException:
            environment.close()
            raise
        return environment, outcomes

    def _open(self, task: Task) -> Environment:
        environment = self._running_simulator().open(task)
        reset_of(environment)
        return environment

    def _add_snapshot(self, task: Task, reached: Snapshot) -> None:
        if not self._can_fork or self._snapshots.holds(task, reached.actions):
            return
        frozen = reached.environment.fork()
        if frozen is None:
            self._can_fork = False
            print("note: this environment cannot fork an episode; every prefix is replayed", file=sys.stderr)
        else:
            self._snapshots.add(task, reached._replace(environment=frozen))

    def step(self, slot: int, action: str) -> Outcome:
        """Execute one action."""
        return _step(self._episodes[slot], action)

    def expert(self, task: Task, kind: str, seed: int) -> list[str]:
        """The actions of one of the world's experts."""
        return checked("the world's expert", self._running_simulator().expert(task, kind, seed), list[str])

    def release(self, slot: int) -> None:
        """End an episode and free what it holds."""
        self._episodes.pop(slot).close()

    def close(self) -> None:
        """Stop the simulator."""
        if self._simulator is not None:
            self._simulator.close()


def reset_of(environment: Environment) -> Reset:
    """The start of an episode. Raises `MachineryError` if the world gives none."""
    return checked("the start of an episode", getattr(environment, "reset", None), Reset)


def _step(environment: Environment, action: str) -> Outcome:
    return checked(f"the step {action!r}", environment.step(action), Outcome)


def _replay(environment: Environment, taken: tuple[Outcome, ...], actions: list[str]) -> list[Outcome]:
    """Take the actions that were not taken yet, until the episode ends; the outcomes of all of them."""
    outcomes = list(taken)
    for action in actions[len(outcomes) :]:
        if outcomes and outcomes[-1].done:
            break
        outcomes.append(_step(environment, action))
    return outcomes
