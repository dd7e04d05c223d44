"""Misbehaving toy worlds, and a process that leaves its pool without closing it. The action selects what happens."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from sandcli.envs.base import Environment
from sandcli.envs.pool import Pool
from sandcli.records import Task
from tests.toyworld import ToyEpisode, ToySimulator, ToyWorld

print("an odd world is imported")

TASK = Task(name="fetch", variation=0)


class OddWorld(ToyWorld):
    """A world whose episodes print, return wrong types, start programs and get stuck."""

    def check_available(self) -> str:
        print("the world prints")
        return "plain Python"

    def start(self) -> ToySimulator:
        return OddSimulator(0.0, None)


class OddSimulator(ToySimulator):
    def open(self, task: Task) -> Environment:
        return OddEpisode(task, 0.0, None) if task.name != "riddle" else None  # type: ignore[return-value]

    def expert(self, task: Task, kind: str, seed: int) -> Any:
        return super().expert(task, kind, seed) if task.name == "fetch" else None


class PonderingWorld(ToyWorld):
    """A world whose expert never answers."""

    def start(self) -> ToySimulator:
        return _PonderingSimulator(0.0, None)


class _PonderingSimulator(ToySimulator):
    def expert(self, task: Task, kind: str, seed: int) -> Any:
        time.sleep(10_000)


class OddEpisode(ToyEpisode):
    def step(self, action: str) -> Any:
        print("the episode prints \ud800")
        answer = super().step("look")
        match action:
            case "forget":
                return None
            case "mumble":
                return answer._replace(observation=None)  # type: ignore[arg-type]
            case "stop short":
                return tuple(answer)[:3]
            case "run programs":
                os.system("echo its program prints; echo its program complains >&2")
            case "start programs":
                return answer._replace(observation=" ".join(map(str, _start_programs())))
            case "get stuck":
                time.sleep(10_000)
            case "crash":
                os._exit(1)
        return super().step(action)


def _start_programs() -> list[int]:
    """Start a program, one in its own session, and one that is stopped."""
    started = [subprocess.Popen(["sleep", "10000"], start_new_session=new) for new in (False, True, False)]
    started[2].send_signal(signal.SIGSTOP)
    return [program.pid for program in started]


class BrokenWorld(ToyWorld):
    """A world that never starts."""

    def start(self) -> ToySimulator:
        raise RuntimeError("the house is on fire")


class ShakyWorld(ToyWorld):
    """A world whose process dies on its first start."""

    def start(self) -> ToySimulator:
        mark = Path(self._settings["faults"]) / "shaky"
        if mark.exists():
            mark.unlink()
            os._exit(1)
        return super().start()


class ExitingWorld(ToyWorld):
    """A world that ends the program."""

    def __init__(self) -> None:
        sys.exit(0)


class StumblingWorld(ToyWorld):
    """A world whose own code has an error."""

    def __init__(self) -> None:
        _ = 1 / 0


def abandon() -> None:
    """Start programs in a pool, print their ids and the worker's, then die at once; the worker may be busy."""
    asyncio.run(_abandon(sys.argv[1]))


async def _abandon(action: str) -> None:
    async with Pool(OddWorld, 1, 60.0) as pool:
        session = await pool.restore(TASK)
        started = await session.step("start programs")
        worker = pool._workers[0]
        os.write(1, f"{started.observation} {worker._process.pid}\n".encode())
        worker._pipe.send(("step", (session._slot, action)))
        os.kill(os.getpid(), signal.SIGKILL)
