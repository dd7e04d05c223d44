"""Runs any stage: compares its plan with what is recorded, does what is missing, seals the artifact."""

import contextlib
import time
from collections.abc import Callable

from sandcli.core import estimates
from sandcli.core.executor import uses_cluster
from sandcli.core.manifest import Manifest, Spent
from sandcli.core.planner import Plan, came_to_nothing, longest_first, open_units, plan_stage
from sandcli.core.stage import Options, P, R, Stage, State, Summary, unit_name
from sandcli.core.units import Units
from sandcli.core.work import Work
from sandcli.errors import Exit, Interrupted, UsageError
from sandcli.files import write_atomic
from sandcli.interrupts import never
from sandcli.progress import notice
from sandcli.records import Failure


async def run_stage(stage: Stage[P, R], options: Options, stop: Callable[[], bool] = never) -> Summary:
    """Bring a stage's artifact up to what is asked for: do nothing, the rest, or all of it.

    `stop` is asked often; when it returns true the units in progress are finished and `Interrupted` is raised. Raises
    `PrerequisiteError` if an input is missing or the artifact was made from something else.
    """
    stage.run.must_exist()
    if options.dry_run:
        return _forecast(stage, plan_stage(stage, options).state, options.gpus)
    with stage.process_group(stop) as follows:
        if follows:
            return Summary(stage.name, Exit.DONE, "", None, [])
        with stage.artifact.locked():
            return await _carry_out(stage, plan_stage(stage, options), options, stop)


async def _carry_out(stage: Stage[P, R], plan: Plan, options: Options, stop: Callable[[], bool]) -> Summary:
    artifact = stage.artifact
    if plan.action == "redo":
        return await _redo(stage, plan, options, stop)
    if options.force:
        notice(f"resuming the work on {artifact.path} that --force began")
    if plan.action == "nothing":
        artifact.finish()
        if plan.digests and not artifact.digests():
            artifact.add_digests(plan.digests)  # the note was lost
        return _nothing_to_do(stage, artifact.manifest())
    if plan.action == "keep":
        return _nothing_to_do(stage, _keep(stage, plan.state))
    if plan.state.refresh or plan.state.edited:
        notice(f"{artifact.path}: it, its input or what is derived from it changed; checking and sealing it again")
    return await _produce(stage, plan, options, stop)


async def _redo(stage: Stage[P, R], plan: Plan, options: Options, stop: Callable[[], bool]) -> Summary:
    stage.identity()  # a missing input or model shows before anything is moved
    stage.check(plan.state)
    moved = stage.artifact.set_aside()
    for path in moved:
        notice(f"moved aside: {path}")
    try:
        return await _produce(stage, plan, options, stop)
    except BaseException:
        if moved and came_to_nothing(stage):  # for example because the model does not load
            stage.artifact.put_back(moved)
            notice(f"nothing new was made: {stage.artifact.path} is as it was before --force")
        raise


def _forecast(stage: Stage[P, R], state: State, gpus: int | None) -> Summary:
    """What would be done, for a dry run."""
    if stage.artifact.record is None:
        planned = stage.plan_text(gpus) if state.todo else ""
        amount = f"; {planned}" if planned else ""
    else:
        first = f"; first {unit_name(state.first)}" if state.first else ""
        estimate = estimates.estimate(stage, state.todo, gpus) if state.todo else ""
        amount = f"; {state.recorded} units recorded, {state.todo} to do{first}{estimate}"
    return Summary(stage.name, Exit.DONE, f"{stage.name}: {state.kind}{amount}", None, [], state.kind != "done")


def _nothing_to_do(stage: Stage[P, R], manifest: Manifest | None) -> Summary:
    return Summary(stage.name, Exit.DONE, f"{stage.artifact.path} is complete: nothing to do", manifest, [])


def _keep(stage: Stage[P, R], state: State) -> Manifest:
    """Note that a finished folder is kept although it is stale, and why."""
    identity = stage.identity()
    manifest = stage.artifact.manifest() or Manifest(stage=stage.name, identity=identity)
    manifest.accepted, manifest.identity = _reasons(manifest, state), identity
    stage.artifact.seal_manifest(manifest, stage.artifact.path)
    stage.artifact.finish()
    return manifest


def _reasons(earlier: Manifest | None, state: State) -> list[str]:
    """The reasons for which the artifact is stale and kept, those of earlier runs included."""
    return list(dict.fromkeys([*(earlier.accepted if earlier else []), *state.reasons]))


async def _produce(stage: Stage[P, R], plan: Plan, options: Options, stop: Callable[[], bool]) -> Summary:
    artifact, state = stage.artifact, plan.state
    stage.check(state)
    earlier = artifact.newest_manifest() if state.kind != "missing" else None
    manifest = Manifest(
        stage=stage.name,
        identity=stage.identity(),
        accepted=_reasons(earlier, state),
        spent=earlier.spent if earlier else Spent(),
        forced=options.force or bool(earlier and earlier.forced),
    )
    artifact.begin(manifest)
    artifact.add_digests(plan.digests)
    journal = artifact.open_journal(state.kind != "missing")
    try:
        done = await _do_units(stage, journal, plan, options, stop)
        manifest.spent += stage.context.spent
        incomplete = done.interrupted or (done.unfinished and not options.accept_failures)
        if not uses_cluster(stage) and artifact.record is not None:  # a training notes its own speed
            estimates.remember(stage, stage.context.spent, 0 if incomplete else len(journal))
        done.list_failures()
        if incomplete:
            artifact.begin(manifest)
            return _unfinished(stage, done)
        _describe(manifest, stage, journal, done)
        _seal(stage, journal, manifest)
    finally:
        journal.close()
    return Summary(stage.name, Exit.DONE, f"{artifact.path}: {stage.summary(journal)}", manifest, done.failures)


async def _do_units(
    stage: Stage[P, R], journal: Work[R], plan: Plan, options: Options, stop: Callable[[], bool]
) -> Units[P, R]:
    """Do what is open, and count what it took."""
    started = time.monotonic()
    units = Units(stage, journal, stop, options.accept_failures, _failures_elsewhere(stage, plan.digests))
    if plan.state.todo:
        stage.stop = stop
        in_order = longest_first if uses_cluster(stage) and stage.plays else open_units
        await units.do(in_order(stage, journal), plan.state.todo, plan.state.recorded)
    seconds, devices = time.monotonic() - started, 0 if uses_cluster(stage) else stage.context.devices
    stage.context.spent += Spent(units=units.recorded, seconds=seconds, device_seconds=seconds * devices)
    return units


def _failures_elsewhere(stage: Stage[P, R], digests: dict[str, str]) -> list[Failure]:
    """Earlier failures of units outside today's plan, such as those of a model that is not asked for."""
    known: list[Failure] = []
    if stage.allow_extra:
        with contextlib.suppress(UsageError):  # a damaged list: units that are asked for again are tried again
            known = stage.artifact.failures()
    return [failure for failure in known if unit_name(failure.key) not in digests]


def _unfinished(stage: Stage[P, R], units: Units[P, R]) -> Summary:
    if units.interrupted:
        raise Interrupted(stage.name)
    message = f"{len(units.failures)} units failed; {stage.artifact.path} stays unfinished"
    return Summary(stage.name, Exit.FAILED_UNITS, message, None, units.failures)


def _describe(manifest: Manifest, stage: Stage[P, R], journal: Work[R], units: Units[P, R]) -> None:
    """Add what the finished records hold."""
    metrics = stage.metrics(iter(journal))
    manifest.counts = {"units": len(journal), "failed": len(units.failures), **metrics.counts}
    manifest.figures, manifest.tokens, manifest.loss = metrics.figures, metrics.tokens, metrics.loss
    manifest.left_out = {**metrics.left_out, **units.skipped}
    manifest.differences = metrics.differences
    manifest.seconds = round(manifest.spent.seconds, 1)
    manifest.forced = False


def _seal(stage: Stage[P, R], journal: Work[R], manifest: Manifest) -> None:
    """Derived files first, then the manifest, then the artifact: it exists only if everything about it does."""
    artifact = stage.artifact
    for name, lines in stage.derive(journal).items():
        write_atomic(artifact.derived[name], lines)
    manifest.derived = artifact.derived_hashes()
    journal.seal(artifact.path, lambda made: artifact.seal_manifest(manifest, made))
    artifact.finish()
