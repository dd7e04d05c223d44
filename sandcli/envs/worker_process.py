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
    """The worker's side: answer until told to stop or the parent is gone."""
    os.setsid()  # a Ctrl-C is the parent's business: it lets episodes finish
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    host = Host(build)
    try:
        while True:
            operation, arguments = pipe.recv()
            if operation == "stop":
                return
            pipe.send(_answer(host, operation, arguments))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except SandError as error:
        pipe.send(("unavailable", (error.what, error.fix)))
    except Exception as error:  # the simulator can no longer be trusted: the parent replaces this process
        pipe.send(("broken", f"{type(error).__name__}: {error}".splitlines()[0]))
    finally:
        host.close()


def _answer(host: "Host", operation: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
    """A task that cannot be played fails alone; the other episodes of this worker go on."""
    try:
        return "ok", getattr(host, operation)(*arguments)
    except MachineryError as error:
        return "failed", (error.reason, error.detail)


class Host:
    """The episodes of one worker, by slot. Its public methods are the operations that a pool may ask for."""

    def __init__(self, build: Callable[[], World], simulator: Simulator | None = None) -> None:
        self._build = build
        self._simulator = simulator
        self._open: dict[int, Environment] = {}
        self._slots = 0
        self._snapshots = Snapshots()
        self._forks = True

    def ping(self) -> str:
        """Start the simulator if it does not run."""
        self._started()
        return "ready"

    def _started(self) -> Simulator:
        if self._simulator is None:
            self._simulator = self._build().start()
        return self._simulator

    def restore(self, task: Task, actions: list[str]) -> tuple[int, Reset, list[Outcome]]:
        """A new episode in the state after some actions, or where it ended on the way."""
        environment, outcomes = self._at(task, actions)
        self._slots += 1
        self._open[self._slots] = environment
        return self._slots, environment.reset, outcomes

    def _at(self, task: Task, actions: list[str]) -> tuple[Environment, list[Outcome]]:
        """Fork the nearest snapshot and go on from there; what is reached becomes a snapshot itself."""
        nearest = self._snapshots.nearest(task, actions)
        environment = nearest.environment.fork() if nearest else None
        if nearest is None or environment is None:
            nearest = Snapshot((), (), environment := self._started().open(task))
        outcomes = list(nearest.outcomes)
        try:
            for action in actions[len(outcomes) :]:
                if outcomes and outcomes[-1].done:
                    break
                outcomes.append(environment.step(action))
            done = tuple(actions[: len(outcomes)])
            if self._forks and not self._snapshots.holds(task, done):
                self._keep(task, Snapshot(done, tuple(outcomes), environment))
        except BaseException:
            environment.close()
            raise
        return environment, outcomes

    def _keep(self, task: Task, reached: Snapshot) -> None:
        frozen = reached.environment.fork()
        if frozen is None:
            self._forks = False
            print("note: this environment cannot fork an episode; every prefix is replayed", file=sys.stderr)
        else:
            self._snapshots.keep(task, reached._replace(environment=frozen))

    def step(self, slot: int, action: str) -> Outcome:
        """Execute one action."""
        return self._open[slot].step(action)

    def expert(self, task: Task, kind: str, seed: int) -> list[str]:
        """The actions of the world's expert."""
        return self._started().expert(task, kind, seed)

    def release(self, slot: int) -> None:
        """The episode is over."""
        self._open.pop(slot).close()

    def close(self) -> None:
        """End the simulator."""
        if self._simulator is not None:
            self._simulator.close()
