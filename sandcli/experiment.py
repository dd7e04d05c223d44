"""`sand experiment`: makes every run of a plan. Runs share what they have in common, and all resume where they were."""

from pathlib import Path

from sandcli.config import FILE, Scalar, resolve
from sandcli.core.artifact import StageName
from sandcli.core.run import Run
from sandcli.core.sharing import share
from sandcli.core.stage import Options, Summary
from sandcli.errors import Exit, UsageError
from sandcli.files import write_atomic
from sandcli.new_run import paths_from, start_run
from sandcli.perform import Flags, context_of, perform
from sandcli.pipeline import row
from sandcli.plans import COPY, EXPERT, Plan, PlannedRun, expert_settings, planned_runs, read_plan, stages_needed
from sandcli.progress import notice


class Experiment:
    """An experiment in the folder `root`: one run that collects D_exp, and one for every arm and seed."""

    def __init__(self, root: Path, plan: Path, seeds: int | None, only: int | None, flags: Flags) -> None:
        """`seeds`: 0, 1, ... below this number, instead of the plan's; `only`: the runs of one of them.

        Raises what `read_plan` does, and `UsageError` if `only` is none of the seeds.
        """
        self._root = root
        self._file = plan
        self._plan: Plan = read_plan(plan)
        chosen = list(range(seeds)) if seeds else self._plan.seeds
        if only is not None and only not in chosen:
            raise UsageError(f"{plan}: {only} is none of its seeds", f"use one of {', '.join(map(str, chosen))}")
        self._flags = flags
        self._runs = [run for run in planned_runs(self._plan, chosen) if only in (None, run.seed)]

    async def run(self) -> Summary:
        """Make what is missing, run after run. Ends early if units of a stage failed; returns the last summary."""
        self._root.mkdir(parents=True, exist_ok=True)
        write_atomic(self._root / COPY, [self._file.read_bytes()])
        summary = await self._collect()
        for number, planned in enumerate(self._runs, 1):
            if summary.exit is Exit.DONE:
                notice(f"run {number} of {len(self._runs)}: {planned.arm}, seed {planned.seed}")
                summary = await self._make(planned)
        return summary

    def outline(self) -> list[str]:
        """A line for every run: its stages, those that are done in brackets. Changes nothing."""
        lines = []
        for planned in self._runs:
            run = self._run_of(planned)
            settings = resolve(self._root, {}, planned.settings).settings
            stages = [f"({name})" if run.artifact(name).path.exists() else name for name in stages_needed(settings)]
            lines.append(f"{run.root}: {' '.join(stages)}")
        return lines

    def _run_of(self, planned: PlannedRun) -> Run:
        return Run(self._root / planned.folder)

    async def _collect(self) -> Summary:
        run = self._ready(Run(self._root / EXPERT), expert_settings(self._plan))
        return await self._stage("collect", run, self._plan.limit, [])

    async def _make(self, planned: PlannedRun) -> Summary:
        settings = planned.settings | self._updates(planned)
        run = self._ready(self._run_of(planned), settings, Run(self._root / EXPERT))
        others = [self._run_of(other) for other in self._runs if other.seed == planned.seed and other != planned]
        for name in stages_needed(context_of(run, self._flags).settings):
            limit = self._plan.tasks if name == "eval" else None
            summary = await self._stage(name, run, limit, others)
            if summary.exit is not Exit.DONE:
                break
        return summary

    async def _stage(self, name: StageName, run: Run, limit: int | None, others: list[Run]) -> Summary:
        context = context_of(run, self._flags, limit)
        if name not in ("collect", "eval"):
            stage = row(name).stage(context)
            if shared := share(stage, [other.artifact(name) for other in others]):
                notice(f"{stage.artifact.path}: copied from {shared.path}, which is the same")
        summary = await perform(name, context, Options())
        notice(summary.message)
        return summary

    def _updates(self, planned: PlannedRun) -> dict[str, Scalar]:
        """The number of optimiser steps, if it is that of another arm."""
        if not planned.updates_of:
            return {}
        made = Run(self._root / planned.updates_of / f"seed{planned.seed}").artifact("train").manifest()
        if made is None:
            raise UsageError(
                f"{self._file}: arms.{planned.arm}: {planned.updates_of} trains no model",
                "set updates_of to an arm that evaluates model",
            )
        return {"train.max_steps": made.counts["steps"]}

    def _ready(self, run: Run, settings: dict[str, Scalar], expert: Run | None = None) -> Run:
        """The run, made if it is not there. Raises `UsageError` if its settings are not the plan's."""
        if not (run.root / FILE).exists():
            start_run(run.root, None, settings, d_exp=expert.root if expert else None)
            return run
        found = {setting.name: setting.value for setting in resolve(run.root, {}, {}).listing()}
        planned = {
            setting.name: setting.value for setting in resolve(run.root, {}, paths_from(run.root, settings)).listing()
        }
        for name, value in planned.items():
            if found[name] != value:
                raise UsageError(
                    f"{run.root / FILE} has {name} = {found[name]}, the plan {self._file} has {value}",
                    "change one of them, or use another --run for the changed plan",
                )
        return run
