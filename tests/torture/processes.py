"""Real processes, killed at random moments: the driver, a worker, a simulator's JVM, or all of them at once."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import psutil

from sandcli.core.artifact import StageName
from tests.helpers import SAND as COMMAND
from tests.helpers import artifact, artifacts, environment, make_run, sand
from tests.torture.cases import Case, must, must_end_well
from tests.torture.inside import Ended
from tests.torture.runs import copied

_PATIENCE = 600.0
"""Seconds that a command may take on a busy machine."""

_SOON = 60.0
"""Seconds within which everything that a killed command started must be gone."""

_HIT = {"driver": None, "group": None, "worker": "python", "jvm": "java"}
"""The program of the process that is killed, if it is not the driver or everything at once."""


class Processes:
    """The cases; the undisturbed runs are made once in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._toy, self._science = cache(self._toyworld), cache(self._scienceworld)

    def from_seed(self, seed: int) -> Iterator[Case]:
        """An endless series of cases; few have a JVM, because those are slow."""
        while True:
            for what in ("driver", "worker", "group", "driver", "worker", "group", "jvm"):
                yield self.case(f"process/{what}/{seed}")
                seed += 1

    def case(self, name: str) -> Case:
        """The case process/WHAT/SEED."""
        _, what, _ = name.split("/")
        return Case(name, lambda folder: self._hit(what, folder, random.Random(name)))

    def _toyworld(self) -> tuple[Path, StageName, float]:
        (self._folder / "toy").mkdir(parents=True)
        root = make_run(self._folder / "toy" / "run", run__workers=2, env__simplifications="pause=0.01", sample__n=3)
        for stage in ("collect", "sample"):
            assert sand(stage, "--run", root).returncode == 0
        return self._timed(root, "rollout")

    def _scienceworld(self) -> tuple[Path, StageName, float]:
        (self._folder / "science").mkdir(parents=True)
        task = {"env__name": "scienceworld", "env__tasks": "find-plant"}
        return self._timed(make_run(self._folder / "science" / "run", run__workers=1, **task), "collect")

    def _timed(self, root: Path, stage: StageName) -> tuple[Path, StageName, float]:
        """A run, the stage that comes next, and the seconds that it takes; it is done in a copy named `done`."""
        done = copied(root, root.parent.with_name(f"{root.parent.name}-done"))
        started = time.monotonic()
        ended = sand(stage, "--run", done, "--limit", "3", timeout=_PATIENCE)
        assert ended.returncode == 0, ended.stderr
        return root, stage, time.monotonic() - started

    def _hit(self, what: str, folder: Path, chance: random.Random) -> bool:
        quiet, stage, seconds = self._science() if what == "jvm" else self._toy()
        expected = artifacts(quiet.parent.with_name(f"{quiet.parent.name}-done") / quiet.name)
        root = copied(quiet, folder)
        command = [*COMMAND, stage, "--run", str(root), "--limit", "3"]
        with (folder / "said").open("wb") as said:
            driver = subprocess.Popen(command, env=environment(), stdout=said, stderr=said, start_new_session=True)
        started = _kill(what, driver, chance.uniform(0.2, 1.0) * seconds)
        code = driver.wait(_PATIENCE)
        ended = Ended(None if code < 0 else code, (folder / "said").read_text())
        if what in ("worker", "jvm"):
            must_end_well(ended, (0, 1))
        _wait(lambda: not [process for process in started if process.is_running()], "processes outlive their stage")
        again = sand(stage, "--run", root, "--limit", "3", timeout=_PATIENCE)
        must_end_well(Ended(again.returncode, again.stdout + again.stderr), (0,))
        must(artifacts(root) == expected, f"{artifact(root, stage).path.name} has other content")
        return bool(started)


def _kill(what: str, driver: "subprocess.Popen[bytes]", delay: float) -> list[psutil.Process]:
    """Kill after `delay` seconds, or as soon as there is something to kill; what the driver had started by then."""
    until = time.monotonic() + delay
    program = _HIT[what]
    while driver.poll() is None:
        started: list[psutil.Process] = psutil.Process(driver.pid).children(recursive=True)
        hit = [process for process in started if program and process.is_running() and program in process.name()]
        if time.monotonic() >= until and (program is None or hit):
            if what == "group":
                os.killpg(driver.pid, signal.SIGKILL)
            else:
                (hit[-1] if program else driver).kill()
            return started
        time.sleep(0.005)
    return []


def _wait(holds: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + _SOON
    while not holds():
        must(time.monotonic() < deadline, otherwise)
        time.sleep(0.05)
