"""Performs stages on real runs: one of them, or all of a method, resumable at any point."""

import contextlib
import os
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from sandcli.config import FILE, Scalar, resolve, without_password
from sandcli.core import estimates
from sandcli.core.artifact import StageName
from sandcli.core.context import Context
from sandcli.core.panel import must_play_whole_panel, playing
from sandcli.core.run import Run
from sandcli.core.runner import run_stage
from sandcli.core.stage import Options, Summary
from sandcli.errors import Exit, PrerequisiteError, UsageError
from sandcli.interrupts import stop
from sandcli.method_settings import MethodSettings
from sandcli.new_run import start_run
from sandcli.pipeline import METHODS, next_root, row, stages_of
from sandcli.progress import notice
from sandcli.settings import Settings
from sandcli.stages.evaluated import ModelsStage

Flags = Mapping[str, Scalar | None]


def context_of(run: Run, flags: Flags, limit: int | None = None) -> Context:
    """A run with its settings: sand.toml, `SAND_*` variables, flags. Raises `PrerequisiteError` if there is no run."""
    run.must_exist()
    resolved = resolve(run.root, os.environ, flags)
    file = run.root / FILE
    if resolved.origins["engine.urls"].startswith(f"{file}:"):
        _warn_of_password(file, tuple(resolved.settings.engine.urls))
    return Context(run, resolved.settings, limit)


@cache
def _warn_of_password(file: Path, urls: tuple[str, ...]) -> None:
    """Say once that others can read the passwords in a file's URLs."""
    if file.stat().st_mode & 0o077 and any(url != without_password(url) for url in urls):
        notice(f"{file} holds a password, and other users may read it: chmod 600 {shlex.quote(str(file))}")


def is_skipped(name: StageName, context: Context) -> bool:
    """Whether the run goes without a stage; says why."""
    why = row(name).skip(context.settings)
    if why is not None:
        notice(f"{name}: skipped, since {why}")
    return why is not None


async def perform(name: StageName, context: Context, options: Options) -> Summary:
    """Bring one stage up to date.

    Raises `UsageError` for `sft` in a run that starts from a given policy, and for a limit on the tasks of a panel.
    """
    if name == "sft":
        context.must_make_sft()
    if issubclass(row(name).stage, ModelsStage):
        must_play_whole_panel(context)
    return await run_stage(row(name).stage(context), options, stop.get())


class _Ended(Exception):
    """The pipeline stops here."""


class Pipeline:
    """Runs a method: `iterations` runs one after the other, as far as the stage `until` in the last of them."""

    def __init__(self, flags: Flags, iterations: int, until: str | None, options: Options) -> None:
        self._flags = flags
        self._iterations = iterations
        self._until = until
        self._options = options
        self._iteration = 1
        self._summaries: list[Summary] = []

    async def run(self, first: Run) -> list[Summary]:
        """Do what is missing, in order; stops early if units of a stage failed.

        Raises `UsageError` if the method has no stage `until`.
        """
        context = context_of(first, self._flags)
        playing(context)  # a panel that cannot be played shows now, not after hours, and so does a missing model
        context.must_find_models()
        method = context.settings.method.name
        names = stages_of(Settings(method=MethodSettings(name=method)))
        if self._until is not None and self._until not in names:
            raise UsageError(
                f"a run of the method {method} has no stage {self._until!r}", f"use one of {', '.join(names)}"
            )
        with contextlib.suppress(_Ended):
            await METHODS[method](first, self._iterations, self._do, self._follow)
        return self._summaries

    async def _do(self, name: StageName, run: Run) -> None:
        context = context_of(run, self._flags)
        if not is_skipped(name, context):
            await self._stage(name, context)
        if self._iteration == self._iterations and name == self._until:
            raise _Ended

    async def _stage(self, name: StageName, context: Context) -> None:
        try:
            summary = await perform(name, context, self._options)
        except PrerequisiteError as error:
            if not self._options.dry_run or self._summaries == []:
                raise
            gpus = self._options.gpus
            estimate = estimates.forecast(row(name).stage(context), gpus) if gpus else ""
            notice(f"{name}: cannot be planned yet: {error.what}{estimate}")
            return
        self._summaries.append(summary)
        notice(summary.message)
        if summary.exit is not Exit.DONE:
            raise _Ended

    def _follow(self, run: Run) -> Run:
        """The next iteration's run, made if it is not there."""
        following = Run(next_root(run.root))
        self._iteration += 1
        if not (following.root / FILE).exists():
            if self._options.dry_run:
                notice(f"{following.root}: cannot be planned yet")
                raise _Ended
            start_run(following.root, run.root, {}, None)
        return following
