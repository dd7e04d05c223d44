"""How `sft` and `train` are planned, run, resumed and put into place; they differ in model, data and settings."""

import shutil
import time
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

from msgspec import structs

from sandcli.core.context import Context
from sandcli.core.run import SCHEMA, Identity, Manifest, Run, Spent, Stage, differences
from sandcli.core.stage import Options, State, Summary
from sandcli.core.store import read
from sandcli.errors import Exit, Interrupted, PrerequisiteError, UsageError
from sandcli.files import fsync_folder
from sandcli.models import fingerprint
from sandcli.progress import notice
from sandcli.prompts import digest as text_digest
from sandcli.records import Trajectory
from sandcli.settings import TrainingSettings
from sandcli.training.checkpoints import complete
from sandcli.training.distributed import Session, Team
from sandcli.training.recipe import Fitted, Means, Recipe, Spec


class Tuning(NamedTuple):
    """A fine-tuning stage: from which model, on which data, with which settings."""

    context: Context
    stage: Literal["sft", "train"]
    start: Path
    data: Path
    aims: TrainingSettings

    def identity(self) -> Identity:
        """The model it starts from, the data, and the recipe."""
        settings = {name: str(getattr(self.aims, name)) for name in self.aims.__struct_fields__}
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
    """Compare the model folder with today's settings and inputs. Changes nothing.

    What was begun and has no checkpoint yet binds nobody: it is missing.
    """
    run = job.context.run
    part = run.manifest(job.stage, part=True)
    made = part or run.manifest(job.stage)
    sealed = run.artifact(job.stage).exists() and part is None
    if not sealed and not (part and complete(run.journal(job.stage) / "checkpoints")):
        return State("missing", 0, 0, [])
    unknown = [f"{run.artifact(job.stage)} has no manifest"]
    reasons = differences(made.identity, job.identity()) if made else unknown
    return State("stale" if reasons else "done" if sealed else "partial", int(sealed), 0, reasons)


def tune(job: Tuning, options: Options) -> Summary:
    """Train, unless the model is there already; goes on from the last checkpoint of an interrupted run.

    Where a launcher started several processes the first one does all this, and the others train with it.
    """
    with Team() as team:
        if team.follows:
            session = team.share(None)
            if session is not None:
                session.run()
            return Summary(job.stage, Exit.DONE, "", None, [])
        return _lead(job, options, team)


def _lead(job: Tuning, options: Options, team: Team) -> Summary:
    run = job.context.run
    run.must_exist()
    with run.locked(job.stage):
        if options.force and not options.dry_run:
            for path in run.set_aside(job.stage):
                notice(f"moved aside: {path}")
        state = State("missing", 0, 0, []) if options.force else inspect(job)
        if state.kind == "stale" and not (options.accept_stale and state.recorded):
            raise _refusal(job, state)
        if options.dry_run:
            message = f"{job.stage}: {state.kind}"
            return Summary(job.stage, Exit.DONE, message, None, [], forecast=state.kind != "done")
        if state.recorded:
            return _kept(job, state)
        return _train(job, state, team)


def _refusal(job: Tuning, state: State) -> PrerequisiteError:
    """A half-made model cannot be kept as it is: going on would mix two recipes."""
    if state.recorded:
        return job.context.run.refusal(job.stage, state.reasons)
    return PrerequisiteError(
        f"{job.context.run.journal(job.stage)} was begun from something else: " + "; ".join(state.reasons),
        "--force moves it aside and begins anew",
    )


def _kept(job: Tuning, state: State) -> Summary:
    run = job.context.run
    manifest = run.manifest(job.stage)
    if manifest is not None and state.reasons:
        manifest.accepted, manifest.identity = run.accepted(job.stage, state.reasons), job.identity()
        run.finish(manifest)
    return Summary(job.stage, Exit.DONE, f"{run.artifact(job.stage)} is complete: nothing to do", manifest, [])


def _train(job: Tuning, state: State, team: Team) -> Summary:
    run, started = job.context.run, time.monotonic()
    _must_be_fit(job, team.size if team.size > 1 else job.context.settings.trainer.nproc)
    identity, before = job.identity(), _begun(job, state)
    run.begin(job.stage, identity, spent=before)
    notice(f"training {job.aims.method} from {job.start} on {job.data}")
    fitted = _fitted(job, team)
    spent = before + Spent(seconds=round(time.monotonic() - started, 1))
    if not fitted.finished:
        run.begin(job.stage, identity, spent=spent)
        raise Interrupted(job.stage)
    manifest = _manifest(job, fitted, identity, spent)
    _put_in_place(run, job.stage)
    run.finish(manifest)
    shutil.rmtree(run.journal(job.stage))
    told = f"{run.artifact(job.stage)}: {fitted.steps} steps; the log is {run.log(job.stage)}"
    return Summary(job.stage, Exit.DONE, told, manifest, [])


def _begun(job: Tuning, state: State) -> Spent:
    """What the processes before this one took; what is left of a run that was thrown away is removed."""
    part, work = job.context.run.manifest(job.stage, part=True), job.context.run.journal(job.stage)
    if state.kind == "partial" and part is not None:
        return part.spent
    if work.exists():
        shutil.rmtree(work)
    return Spent()


def _put_in_place(run: Run, stage: Stage) -> None:
    model = run.artifact(stage)
    if model.exists():
        shutil.rmtree(model)  # a kill came between the model and its manifest
    (run.journal(stage) / "result").rename(model)
    fsync_folder(model.parent)


def _must_be_fit(job: Tuning, processes: int) -> None:
    """Raise before anything is begun: over data that cannot be read or is none, over processes without work."""
    if not sum(1 for _ in read(job.data, Trajectory)):
        again = f"remove it, then make it anew: sand synthesize --run {job.context.run.root}"
        fix = "collect some: other tasks, a larger --limit" if job.stage == "sft" else again
        raise UsageError(f"{job.data} holds no trajectory", fix)
    if processes > job.aims.batch_size:
        raise UsageError(
            f"{processes} processes cannot share batches of {job.aims.batch_size} trajectories",
            f"start {job.aims.batch_size} or fewer, or raise {job.stage}.batch_size",
        )


def _fitted(job: Tuning, team: Team) -> Fitted:
    """Train: in processes that are started now, with those that a launcher started, or alone."""
    run, settings = job.context.run, job.context.settings
    recipe = Recipe(**structs.asdict(job.aims), seed=settings.run.seed)
    how = structs.asdict(settings.trainer)
    processes = how.pop("nproc")
    means = Means(**how | {"report_to": tuple(settings.trainer.report_to)})
    spec = Spec(job.start, job.context.world.system, recipe, means, run.journal(job.stage), run.log(job.stage))
    session = Session(job.stage, spec, job.data, job.context.limit)
    if processes > 1 and team.size == 1:
        return session.launched(processes)
    if settings.trainer.shard and team.size == 1:
        notice("trainer.shard has no effect in one process; --nproc starts one for each GPU")
    team.share(session)
    return session.run()


def _manifest(job: Tuning, fitted: Fitted, identity: Identity, spent: Spent) -> Manifest:
    size, log = fitted.size, fitted.log
    manifest = Manifest(stage=job.stage, identity=identity, tokens=size.tokens, left_out=size.too_long)
    manifest.seconds = spent.seconds
    manifest.loss = [(entry.step, entry.loss) for entry in log]
    manifest.counts = {"trajectories": size.trajectories, "too_long": len(size.too_long), "steps": fitted.steps}
    manifest.figures = {
        "first_loss": log[0].loss,
        "last_loss": log[-1].loss,
        "tokens_a_second": median(entry.tokens_a_second for entry in log),
        "memory_gib": max(entry.memory_gib for entry in log),
    }
    return manifest
