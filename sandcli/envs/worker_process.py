"""The inside of a worker process: one simulator, its episodes by slot, and the loop that answers the pool."""

import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from sandcli.envs.base import Environment, Outcome, Reset, Simulator, World
from sandcli.envs.snapshots import Snapshot, Snapshots
from sandcli.errors import MachineryError, SandError
from sandcli.records import Task


def serve(pipe: Connection, build: Callable[[], World]) -> None:
    """The main loop of a worker process: answer requests until the parent says stop or is gone."""
    os.setsid()  # Ctrl-C is for the parent alone, which lets episodes finish
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker = WorkerProcess(build)
    try:
        while True:
            operation, arguments = pipe.recv()
            if operation == "stop":
                return
            pipe.send(_answer(worker, operation, arguments))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except SandError as error:
        pipe.send(("unavailable", (error.what, error.fix)))
    except Exception as error:  # the simulator can no longer be trusted: the parent replaces this process
        pipe.send(("broken", f"{type(error).__name__}: {error}".splitlines()[0]))
    finally:
        worker.close()


def _answer(worker: "WorkerProcess", operation: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
    """Run one operation. A `MachineryError` fails this episode only; the worker's other episodes continue."""
    try:
        return "ok", getattr(worker, operation)(*arguments)
    except MachineryError as error:
        return "failed", (error.reason, error.detail)


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
        self._last_slot += 1
        self._episodes[self._last_slot] = environment
        return self._last_slot, environment.reset, outcomes

    def _reach(self, task: Task, actions: list[str]) -> tuple[Environment, list[Outcome]]:
        """Fork the nearest snapshot and replay the rest of the actions; snapshot the state that they reach."""
        nearest = self._snapshots.nearest(task, actions)
        environment = nearest.environment.fork() if nearest else None
        if nearest is None or environment is None:
            nearest = Snapshot((), (), environment := self._running_simulator().open(task))
        try:
            outcomes = _replay(environment, nearest.outcomes, actions)
            self._add_snapshot(task, Snapshot(tuple(actions[: len(outcomes)]), tuple(outcomes), environment))
        except BaseException:
            environment.close()
            raise
        return environment, outcomes

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
        return self._episodes[slot].step(action)

    def expert(self, task: Task, kind: str, seed: int) -> list[str]:
        """The actions of one of the world's experts."""
        return self._running_simulator().expert(task, kind, seed)

    def release(self, slot: int) -> None:
        """End an episode and free what it holds."""
        self._episodes.pop(slot).close()

    def close(self) -> None:
        """Stop the simulator."""
        if self._simulator is not None:
            self._simulator.close()


def _replay(environment: Environment, taken: tuple[Outcome, ...], actions: list[str]) -> list[Outcome]:
    """Take the actions that were not taken yet, until the episode ends; the outcomes of all of them."""
    outcomes = list(taken)
    for action in actions[len(outcomes) :]:
        if outcomes and outcomes[-1].done:
            break
        outcomes.append(environment.step(action))
    return outcomes
