"""`sand experiment`: makes every run of a plan. Runs share what they have in common, and all resume where they were."""

from collections.abc import Mapping
from pathlib import Path

from sandcli.config import FILE, Scalar, resolve
from sandcli.core.artifact import StageName
from sandcli.core.context import Context
from sandcli.core.panel import playing
from sandcli.core.run import EXPERT, LEARNING, PLAN, Run
from sandcli.core.sharing import share
from sandcli.core.stage import Options, Summary
from sandcli.errors import Exit, SandError, UsageError
from sandcli.files import write_atomic
from sandcli.models import fingerprint
from sandcli.new_run import paths_from, start_run
from sandcli.perform import Flags, context_of, perform
from sandcli.pipeline import row
from sandcli.plans import PlannedRun, expert_settings, planned_runs, read_plan, stages_needed
from sandcli.progress import notice
from sandcli.settings import EnvSettings, Settings

_MOST_SEEDS = 1000


class Experiment:
    """An experiment in the folder `root`: one run that collects D_exp, and one for every arm and seed.

    `run` is the one in progress.
    """

    run: Run

    def __init__(self, root: Path, plan: Path, seeds: int | None, only: int | None, flags: Flags) -> None:
        """`seeds`: 0, 1, ... below this number, instead of the plan's; `only`: the runs of one of them.

        Raises what `read_plan` does, and `UsageError` if there are too many seeds, `only` is not one of them, or
        settings of an arm exclude each other.
        """
        if root.exists() and not root.is_dir():
            raise UsageError(f"{root} is not a folder", "use another --run")
        if (root / FILE).exists():
            raise UsageError(f"{root} is a run, not the folder of an experiment", "use another --run")
        self._root = root
        self._file = plan
        self._plan = read_plan(plan)
        if seeds and seeds > _MOST_SEEDS:
            raise UsageError(
                f"--seeds {seeds} is the number of seeds, at most {_MOST_SEEDS}",
                "seeds = [...] in the plan names single ones",
            )
        chosen = list(range(seeds)) if seeds else self._plan.seeds
        if only is not None and only not in chosen:
            raise UsageError(f"{plan}: {only} is not one of the seeds", f"use one of {', '.join(map(str, chosen))}")
        self._flags = flags
        self._runs: list[tuple[PlannedRun, Settings]] = []
        for run in planned_runs(self._plan, chosen):
            settings = self._resolved(run)
            if only in (None, run.seed):
                self._runs.append((run, settings))
        if not self._runs:
            raise UsageError(f"{plan} has no run with the seed {only}", "its arms train nothing: leave out --only")

    async def make(self) -> Summary:
        """Make what is missing, run after run. Ends early if units of a stage failed; returns the last summary.

        Raises `UsageError` before anything is made if this machine cannot play the panel of a run.
        """
        worlds: list[EnvSettings] = []
        for planned, settings in self._runs:
            if settings.env not in worlds:  # checking a panel reads its games, and all runs play the same panel
                worlds.append(settings.env)
                playing(Context(Run(self._root), settings))
            later = _steps_setting(settings) if planned.updates_of else ""
            self._must_be_planned(self._run_of(planned), planned.settings, later)
        self._must_be_planned(self._expert, expert_settings(self._plan))
        self._root.mkdir(parents=True, exist_ok=True)
        copy, content = self._root / PLAN, self._file.read_bytes()
        if not copy.exists() or copy.read_bytes() != content:
            write_atomic(copy, [content])
        summary = await self._collect()
        for number, (planned, settings) in enumerate(self._runs, 1):
            if summary.exit is Exit.DONE:
                notice(f"run {number} of {len(self._runs)}: {planned.arm}, seed {planned.seed}")
                summary = await self._make(planned, settings)
        return summary

    def outline(self) -> list[str]:
        """A line for every run: its stages, those that are done in brackets. Changes nothing."""
        lines = []
        for planned, settings in self._runs:
            run = self._run_of(planned)
            stages = [f"({name})" if run.artifact(name).path.exists() else name for name in stages_needed(settings)]
            lines.append(f"{run.root}: {' '.join(stages)}")
        return lines

    def _resolved(self, planned: PlannedRun) -> Settings:
        """The settings of a run.

        Raises `UsageError` if they exclude each other, or `updates_of` names an arm without training.
        """
        try:
            settings = resolve(self._root, {}, planned.settings).settings
        except SandError as error:
            raise UsageError(f"{self._file}: arms.{planned.arm}: {error.what}", error.fix) from None
        for earlier, its in self._runs:
            if earlier.arm == planned.updates_of and LEARNING[its.method.name].by not in stages_needed(its):
                raise UsageError(
                    f"{self._file}: arms.{planned.arm}: updates_of names {earlier.arm}, which trains no model",
                    "name an arm that evaluates model",
                )
        return settings

    def _run_of(self, planned: PlannedRun) -> Run:
        return Run(self._root / planned.folder)

    @property
    def _expert(self) -> Run:
        return Run(self._root / EXPERT)

    async def _collect(self) -> Summary:
        settings = self._begin(self._expert, expert_settings(self._plan), None)
        planned = context_of(self._expert, settings, self._plan.limit)
        forecast = await perform("collect", planned, Options(dry_run=True))
        if not forecast.forecast:  # done: other processes may need it now, and the stage would lock it
            return forecast
        if begun := next(self._root.glob("*/seed*/expert.jsonl"), None):
            raise UsageError(
                f"{self._file}: its D_exp is not the one of {begun.parent}: {forecast.message}",
                "restore limit and the settings of collect, or use another --run",
            )
        return await self._stage("collect", settings, self._plan.limit, [])

    async def _make(self, planned: PlannedRun, chosen: Settings) -> Summary:
        run = self._run_of(planned)
        settings = self._begin(run, planned.settings | self._updates(planned, chosen), self._expert.root)
        self._must_share_d_exp(run)
        context_of(run, settings).must_find_models()
        others = [self._run_of(other) for other, _ in self._runs if other.seed == planned.seed and other != planned]
        for name in stages_needed(chosen):
            limit = self._plan.tasks if name == "eval" else None
            summary = await self._stage(name, settings, limit, others)
            if summary.exit is not Exit.DONE:
                break
        return summary

    async def _stage(self, name: StageName, settings: Flags, limit: int | None, others: list[Run]) -> Summary:
        context = context_of(self.run, settings, limit)
        if name not in ("collect", "eval"):
            stage = row(name).stage(context)
            if shared := share(stage, [other.artifact(name) for other in others]):
                notice(f"{stage.artifact.path}: copied from {shared.path}, which has the same settings and inputs")
        summary = await perform(name, context, Options())
        notice(summary.message)
        return summary

    def _must_share_d_exp(self, run: Run) -> None:
        mine, theirs = run.artifact("collect").path, self._expert.artifact("collect").path
        if mine.exists() and fingerprint(mine) != fingerprint(theirs):
            raise UsageError(
                f"{mine} is not {theirs}: it was collected again since",
                f"use another --run, or move {run.root} away to make it again",
            )

    def _updates(self, planned: PlannedRun, settings: Settings) -> dict[str, Scalar]:
        """The number of optimiser steps, if it is that of another arm."""
        if not planned.updates_of:
            return {}
        other = next(its for its in self._runs if its[0][:2] == (planned.updates_of, planned.seed))
        trained = self._run_of(other[0]).artifact(LEARNING[other[1].method.name].by)
        trained.require()
        made = trained.manifest()
        assert made is not None
        return {_steps_setting(settings): made.counts["steps"]}

    def _begin(self, run: Run, planned: dict[str, Scalar], d_exp: Path | None) -> Flags:
        """Make the run if it is not there; returns its settings as flags, which `SAND_*` variables do not override."""
        self.run = run
        if not (run.root / FILE).exists():
            start_run(run.root, None, planned, d_exp=d_exp)
        self._must_be_planned(run, planned)
        return {**paths_from(run.root, planned), **self._flags}

    def _must_be_planned(self, run: Run, planned: Mapping[str, Scalar], later: str = "") -> None:
        """Raise `UsageError` if there is the run, and its settings are not the plan's, `later` aside."""
        if not (run.root / FILE).exists():
            return
        settings = paths_from(run.root, planned)
        wanted = {setting.name: setting.value for setting in resolve(self._root, {}, settings).listing()}
        for name, value, *_ in resolve(run.root, {}, {}).listing():
            if wanted[name] != value and name != later:
                raise UsageError(
                    f"{run.root / FILE} has {name} = {value}, the plan {self._file} has {wanted[name]}",
                    "change one of them, or use another --run for the changed plan",
                )


def _steps_setting(settings: Settings) -> str:
    """The setting that fixes the number of optimiser steps of a method's training."""
    return f"{LEARNING[settings.method.name].by}.max_steps"
