"""Runs the `sand` command in this process and thread: no interpreter starts, and events keep their order."""

import asyncio
import contextlib
import importlib
import importlib.metadata
import io
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import typer.main

from sandcli import envs, models
from sandcli.cli import main
from sandcli.envs import pool
from sandcli.envs.base import World
from sandcli.envs.worker import Worker, WorkerDied, WorkerReplaced
from sandcli.envs.worker_process import WorkerProcess
from sandcli.errors import MachineryError, PrerequisiteError, SandError
from sandcli.stages.training import TrainingStage
from sandcli.training.checkpoints import fsync_all
from sandcli.training.config import LoggedStep, Size, TrainingResult
from tests.helpers import watched
from tests.torture.faults import NO_FAULT, Faults, Plan
from tests.torture.power import Unsynced

PATIENCE, WORK = 300, 20
"""A command hangs if it takes more than these seconds, and CPU seconds."""

Command = Sequence[str | Path]

STEP = LoggedStep(
    step=1, epoch=1.0, loss=0.5, learning_rate=1e-5, gradient_norm=1.0, tokens_a_second=10.0, memory_gib=1.0
)


class Ended(NamedTuple):
    """How a command ended; `code` is None if it was killed. `point` is where the fault occurred, "" if it did not."""

    code: int | None
    said: str
    point: str = ""
    points: int = 0
    begun: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """No traceback, no internal error."""
        return self.code != 70 and "Traceback" not in self.said


class WorkerInside(Worker):
    """A worker without a process of its own: it works in this one."""

    def __init__(self, build: Callable[[], World], *_: Any) -> None:
        super().__init__(build, *_)
        self._make = build
        self._inside: WorkerProcess | None = None

    async def call(self, operation: str, *arguments: Any, generation: int | None = None) -> tuple[int, Any]:
        """Do one operation at once. What would end a worker process ends this one's episodes."""
        if generation is not None and generation != self.generation:
            raise WorkerReplaced
        self._inside = self._inside or WorkerProcess(self._make)
        try:
            return self.generation, getattr(self._inside, operation)(*arguments)
        except MachineryError:
            raise
        except SandError as error:
            raise PrerequisiteError(error.what, error.fix) from None
        except Exception as error:
            self._inside, self.generation = None, self.generation + 1
            raise WorkerDied("environment", f"{type(error).__name__}: {error}".splitlines()[0]) from error


def live_inside() -> None:
    """From now on, stages of this process start no thread and no process; training and models are stand-ins."""

    async def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    stand_ins = (
        (pool, "Worker", WorkerInside),
        (asyncio, "to_thread", at_once),
        (TrainingStage, "_fit", _fit),
        (models, "_convert", _converted),
    )
    for owner, name, stand_in in stand_ins:
        setattr(owner, name, stand_in)
    for module, name in ((envs, "entry_points"), (importlib.metadata, "version"), (typer.main, "get_command")):
        setattr(module, name, cache(getattr(module, name)))  # they take most of the time of such a small stage
    for module_name in ("perform", "engines.scripted", "report.build", "report.html", "show", "status"):
        importlib.import_module(f"sandcli.{module_name}")
    os.environ["COLUMNS"] = "200"
    for variable in [variable for variable in os.environ if variable.startswith("SAND_")]:
        del os.environ[variable]


def _converted(source: Path, folder: Path) -> None:
    """Stand in for the embedded model, whose conversion takes most of a minute."""
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')


def _fit(stage: TrainingStage, job: Any, processes: int) -> TrainingResult:
    """Write a model as real training does, and just as durably."""
    result = stage.artifact.journal / "result"
    shutil.rmtree(result, ignore_errors=True)
    result.mkdir(parents=True)
    shutil.copy(stage.start().folder / "config.json", result / "config.json")
    (result / "model.safetensors").write_bytes(b"weights" + stage.data().read_bytes()[:100])
    fsync_all(result)
    return TrainingResult([STEP], 1, Size(1, 10, 5, 10, {}), True)


def sand(*arguments: str | Path) -> Ended:
    """Run the command to its end."""
    before, sys.argv = sys.argv, ["sand", *map(str, arguments)]
    said = io.StringIO()
    code: Any = 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main()
        except SystemExit as error:
            code = error.code or 0
        except BaseException:
            said.write(traceback.format_exc())
            code = 1
    sys.argv = before
    return Ended(int(code), said.getvalue())


def forked(commands: Sequence[Command], plan: Plan = NO_FAULT) -> Ended:
    """Run commands in a fork of this process until one does not end with 0 or 1; return how the last one ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            _be_a_child(commands, plan, writing)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        lines = [json.loads(line) for line in pipe if line.endswith("\n")]
    return _ended(lines, os.waitpid(child, 0)[1])


def _be_a_child(commands: Sequence[Command], plan: Plan, pipe: int) -> None:
    signal.alarm(PATIENCE)
    resource.setrlimit(resource.RLIMIT_CPU, (WORK, WORK))
    real_write = os.write

    def tell(**what: Any) -> None:
        real_write(pipe, json.dumps(what).encode() + b"\n")

    watched(lambda unit: tell(begun=unit))
    power = Unsynced(Path(tempfile.mkdtemp())) if plan.act == "power" else None
    faults = Faults(plan, lambda point: tell(point=point), power)
    faults.install()
    for command in commands:
        ended = sand(*command)
        tell(code=ended.code, said=ended.said, points=faults.points)
        if ended.code not in (0, 1):
            return


def _ended(lines: Sequence[dict[str, Any]], status: int) -> Ended:
    point = next((line["point"] for line in lines if "point" in line), "")
    begun = tuple(line["begun"] for line in lines if "begun" in line)
    codes = [line for line in lines if "code" in line]
    said = "".join(line["said"] for line in codes)
    if os.WIFSIGNALED(status):
        if os.WTERMSIG(status) in (signal.SIGALRM, signal.SIGXCPU, signal.SIGKILL) and not point:
            return Ended(70, said + "\nit hangs", point, 0, begun)
        return Ended(None, said, point, 0, begun)
    if not codes:
        return Ended(70, "the process ended without a word", point, 0, begun)
    return Ended(codes[-1]["code"], said, point, codes[-1]["points"], begun)
