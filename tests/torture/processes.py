"""Real processes, killed at random moments: the driver, a worker, a JVM, a model server, or all of them at once."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import psutil

from sandcli.core.artifact import StageName
from tests import fake_vllm
from tests.helpers import REPO, artifact, artifacts, environment, make_run, sand
from tests.helpers import SAND as COMMAND
from tests.torture.cases import Case, must, must_end_well
from tests.torture.inside import Ended
from tests.torture.runs import copied

_PATIENCE = 600.0
"""Seconds that a command may take on a busy machine."""

_SOON = 60.0
"""Seconds within which everything that a killed command started must be gone."""


class Scene(NamedTuple):
    """A stage that comes next in the run `quiet`, the seconds that it takes, and its further variables."""

    quiet: Path
    stage: StageName
    seconds: float
    extra: Mapping[str, str]

    @property
    def done(self) -> Path:
        """The same run with the stage done, undisturbed."""
        return self.quiet.parent.with_name(f"{self.quiet.parent.name}-done") / self.quiet.name

    def run(self, root: Path) -> Ended:
        """Run the stage in `root` to its end."""
        ended = sand(self.stage, "--run", root, "--limit", "3", timeout=_PATIENCE, extra=self.extra)
        return Ended(ended.returncode, ended.stdout + ended.stderr)


class Target(NamedTuple):
    """Which process of a scene is killed: the last one with `word` in its command line; without a word the driver.

    `codes` are the exit codes of a driver that survives.
    """

    scene: str
    word: str = ""
    group: bool = False
    codes: tuple[int, ...] = ()


TARGETS = {
    "driver": Target("toy"),
    "server": Target("served", "vllm.entrypoints", codes=(0, 1, 3)),
    "worker": Target("toy", "spawn_main", codes=(0, 1)),
    "jvm": Target("science", "GatewayServer", codes=(0, 1)),
    "group": Target("toy", group=True),
    "client": Target("served"),
}
"""`client` is the driver of a model server."""


class Processes:
    """The cases; the undisturbed runs are made once in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._scene = cache(self._made)

    def from_seed(self, seed: int) -> Iterator[Case]:
        """An endless series of cases."""
        while True:
            for what in TARGETS:
                yield self.case(f"process/{what}/{seed}")
            seed += 1

    def case(self, name: str) -> Case:
        """The case process/WHAT/SEED."""
        target = TARGETS[name.split("/")[1]]
        return Case(name, lambda folder: _hit(target, self._scene(target.scene), folder, random.Random(name)))

    def _made(self, name: str) -> Scene:
        folder = self._folder / name
        folder.mkdir(parents=True)
        match name:
            case "toy":
                root = make_run(folder / "run", run__workers=2, env__simplifications="pause=0.01", sample__n=3)
                for stage in ("collect", "sample"):
                    assert sand(stage, "--run", root).returncode == 0
                return _timed(root, "rollout", {})
            case "science":
                task = {"env__name": "scienceworld", "env__tasks": "find-plant"}
                return _timed(make_run(folder / "run", run__workers=1, **task), "collect", {})
            case _:
                return _served(folder, self._folder)


def _served(folder: Path, beside: Path) -> Scene:
    """A stage that starts a model server and asks it."""
    from tests.words import publish

    model = str(publish(beside / "model", positions=4096))
    root = make_run(folder / "run", model__base=model, model__policy=model, agent__max_tokens=64, sample__n=2)
    assert sand("collect", "--run", root).returncode == 0
    installed = fake_vllm.install(beside / "installed")
    extra = {
        "SAND_ENGINE_KIND": "vllm",
        "PYTHONPATH": f"{installed}:{REPO}",
        "FAKE_VLLM_PIDS": str(beside / "pids"),
        "FAKE_VLLM": "slow 0.2",
    }
    return _timed(root, "sample", extra)


def _timed(root: Path, stage: StageName, extra: Mapping[str, str]) -> Scene:
    """Run the stage once, undisturbed, to know its result and the time that it takes."""
    scene = Scene(root, stage, 0.0, extra)
    copied(root, scene.done.parent)
    started = time.monotonic()
    ended = scene.run(scene.done)
    assert ended.code == 0, ended.said
    return scene._replace(seconds=time.monotonic() - started)


def _hit(target: Target, scene: Scene, folder: Path, chance: random.Random) -> bool:
    root = copied(scene.quiet, folder)
    command = [*COMMAND, scene.stage, "--run", str(root), "--limit", "3"]
    variables = environment(**scene.extra)
    with (folder / "said").open("wb") as said:
        driver = subprocess.Popen(command, env=variables, stdout=said, stderr=said, start_new_session=True)
    started = _kill(target, driver, chance.uniform(0.2, 1.0) * scene.seconds)
    code = driver.wait(_PATIENCE)
    if target.codes:
        must_end_well(Ended(code, (folder / "said").read_text()), target.codes)
    _wait(lambda: not any(map(_lives, started)), "processes outlive their stage")
    must_end_well(scene.run(root), (0,))
    must(artifacts(root) == artifacts(scene.done), f"{artifact(root, scene.stage).path.name} has other content")
    return bool(started)


def _kill(target: Target, driver: "subprocess.Popen[bytes]", delay: float) -> list[psutil.Process]:
    """Kill after `delay` seconds, or as soon as there is something to kill; what ran at that time, or nothing."""
    until = time.monotonic() + delay
    while driver.poll() is None:
        main = psutil.Process(driver.pid)
        running = [main, *main.children(recursive=True)]
        hit = [process for process in running[1:] if _has(process, target.word)] if target.word else [main]
        if time.monotonic() >= until and hit:
            if target.group:
                os.killpg(driver.pid, signal.SIGKILL)
            else:
                hit[-1].kill()
            return running
        time.sleep(0.005)
    return []


def _has(process: psutil.Process, word: str) -> bool:
    try:
        return any(word in argument for argument in process.cmdline())
    except psutil.Error:  # it has ended
        return False


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _wait(holds: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + _SOON
    while not holds():
        must(time.monotonic() < deadline, otherwise)
        time.sleep(0.05)
