"""How `sft` and `train` are planned, run, resumed and put into place; they differ in model, data and settings."""

import shutil
import time
from pathlib import Path
from typing import Literal, NamedTuple

from sandcli.config import Training
from sandcli.errors import Exit, Interrupted, UsageError
from sandcli.models import fingerprint
from sandcli.progress import Bar, notice
from sandcli.prompts import digest as text_digest
from sandcli.records import Trajectory
from sandcli.run import SCHEMA, Identity, Manifest, differences
from sandcli.stages.context import Context
from sandcli.stages.interrupts import Interrupts
from sandcli.stages.job import Options, State, Summary
from sandcli.store import fsync_folder, read


class Tuning(NamedTuple):
    """A fine-tuning stage: from which model, on which data, with which settings."""

    context: Context
    stage: Literal["sft", "train"]
    start: Path
    data: Path
    training: Training

    def identity(self) -> Identity:
        """The model it starts from, the data, and the recipe."""
        settings = {
            name: str(getattr(self.training, name))
            for name in self.training.__struct_fields__
            if name != "checkpoint_minutes"
        }
        settings |= {
            "start": fingerprint(self.start),
            "data": fingerprint(self.data),
            "prompt.instruction": text_digest(self.context.world.system),
            "run.seed": str(self.context.settings.run.seed),
            "limit": str(self.context.limit),
            "schema": SCHEMA,
        }
        return Identity(settings=settings, inputs={}, scope={})


def inspect(job: Tuning) -> State:
    """Compare the model folder with today's settings and inputs. Changes nothing."""
    run = job.context.run
    part = run.manifest(job.stage, part=True)
    made = part or run.manifest(job.stage)
    sealed = run.artifact(job.stage).exists() and part is None
    if not sealed and part is None:
        return State("missing", 0, 0, [])
    unknown = [f"{run.artifact(job.stage)} has no manifest"]
    reasons = differences(made.identity, job.identity()) if made else unknown
    return State("stale" if reasons else "done" if sealed else "partial", int(sealed), 0, reasons)


def tune(job: Tuning, options: Options) -> Summary:
    """Train, unless the model is there already; goes on from the last checkpoint of an interrupted run."""
    run = job.context.run
    run.must_exist()
    with run.locked(job.stage):
        if options.force and not options.dry_run:
            for path in run.set_aside(job.stage):
                notice(f"moved aside: {path}")
        state = inspect(job)
        if state.kind == "stale" and not options.accept_stale:
            raise run.refusal(job.stage, state.reasons)
        if options.dry_run:
            return Summary(job.stage, Exit.DONE, f"{job.stage}: {state.kind}", None, [], forecast=True)
        if state.recorded:
            return _kept(job, state)
        return _train(job, state)


def _kept(job: Tuning, state: State) -> Summary:
    run = job.context.run
    manifest = run.manifest(job.stage)
    if manifest is not None and state.reasons:
        manifest.accepted, manifest.identity = state.reasons, job.identity()
        run.finish(manifest)
    return Summary(job.stage, Exit.DONE, f"{run.artifact(job.stage)} is complete: nothing to do", manifest, [])


def _train(job: Tuning, state: State) -> Summary:
    from sandcli.finetune import Hooks, Recipe, fit

    run, started = job.context.run, time.monotonic()
    trajectories = list(read(job.data, Trajectory))[: job.context.limit]
    if not trajectories:
        raise UsageError(f"{job.data} holds no trajectory", "collect some: other tasks, a larger --limit")
    fields = {name: getattr(job.training, name) for name in job.training.__struct_fields__}
    recipe = Recipe(**fields, seed=job.context.settings.run.seed)
    identity = job.identity()
    run.begin(job.stage, identity)
    notice(f"training {recipe.method} from {job.start} on {len(trajectories)} trajectories")
    work, model, bar = run.journal(job.stage), run.artifact(job.stage), Bar(job.stage, 0, 0)
    if state.kind == "missing":
        shutil.rmtree(work, ignore_errors=True)  # left by a run that was thrown away
    with Interrupts() as interrupts, bar.shown():
        hooks = Hooks(bar.restart, bar.advance, lambda: interrupts.asked)
        fitted, prepared = fit(job.start, job.context.world.system, trajectories, recipe, work, hooks)
    if not fitted.finished:
        raise Interrupted(job.stage)
    shutil.rmtree(model, ignore_errors=True)  # a kill came between the model and its manifest
    (work / "result").rename(model)
    fsync_folder(model.parent)
    manifest = Manifest(stage=job.stage, identity=identity, tokens=fitted.tokens, loss=fitted.loss)
    manifest.counts = {"trajectories": len(prepared.rows), "too_long": len(prepared.too_long), "steps": fitted.steps}
    manifest.figures = {"first_loss": fitted.loss[0][1], "last_loss": fitted.loss[-1][1]}
    manifest.left_out, manifest.accepted = prepared.too_long, state.reasons
    manifest.seconds = round(time.monotonic() - started, 1)
    run.finish(manifest)
    shutil.rmtree(work)
    return Summary(job.stage, Exit.DONE, f"{model}: {fitted.steps} steps", manifest, [])
