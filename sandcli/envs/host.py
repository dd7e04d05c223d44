"""The inside of a worker process: one simulator, its episodes by slot, and the loop that answers the pool."""

import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from sandcli.envs.base import Environment, Outcome, Reset, World
from sandcli.errors import SandError
from sandcli.records import Task


def serve(pipe: Connection, build: Callable[[], World]) -> None:
    """The worker's side: answer until told to stop or the parent is gone."""
    os.setsid()  # a Ctrl-C is the parent's business: it lets episodes finish
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    host = _Host(build)
    try:
        while True:
            operation, arguments = pipe.recv()
            if operation == "stop":
                return
            pipe.send(("ok", getattr(host, operation)(*arguments)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except SandError as error:
        pipe.send(("unavailable", (error.what, error.fix)))
    except Exception as error:  # the simulator can no longer be trusted: the parent replaces this process
        pipe.send(("broken", f"{type(error).__name__}: {error}".splitlines()[0]))
    finally:
        host.close()


class _Host:
    """The episodes of one worker, by slot."""

    def __init__(self, build: Callable[[], World]) -> None:
        self._build = build
        self._simulator: Any = None
        self._open: dict[int, Environment] = {}
        self._slots = 0

    def ping(self) -> str:
        if self._simulator is None:
            self._simulator = self._build().start()
        return "ready"

    def restore(self, task: Task, actions: list[str]) -> tuple[int, Reset, list[Outcome]]:
        self.ping()
        environment = self._simulator.open()  # never one that was used: it may remember the last episode's score
        self._slots += 1
        self._open[self._slots] = environment
        reset = environment.reset(task)
        outcomes: list[Outcome] = []
        for action in actions:
            outcomes.append(environment.step(action))
            if outcomes[-1].done:
                break
        return self._slots, reset, outcomes

    def step(self, slot: int, action: str) -> Outcome:
        return self._open[slot].step(action)

    def expert(self, task: Task) -> list[str]:
        self.ping()
        return list(self._simulator.expert(task))

    def release(self, slot: int) -> None:
        del self._open[slot]

    def close(self) -> None:
        if self._simulator is not None:
            self._simulator.close()
