"""How a JSONL stage is brought up to date and sealed."""

import time
from contextlib import closing

import msgspec

from sandcli.core import estimates as history
from sandcli.core.planner import Survey, noted, open_units, surveyed
from sandcli.core.run import Identity, Manifest, Spent
from sandcli.core.stage import Job, Options, P, R, State, Summary, unit_name
from sandcli.core.store import Journal, Records, unseal
from sandcli.core.units import Shift
from sandcli.errors import Exit, Interrupted
from sandcli.files import write_atomic
from sandcli.models import fingerprint
from sandcli.progress import notice
from sandcli.records import Failure


def work(job: Job[P, R], options: Options) -> Summary:
    """Bring a stage's artifact up to what is asked for: nothing, the rest, or all of it."""
    job.run.must_exist()
    with job.run.locked(job.stage):
        if options.force:
            afresh: Survey[P, R] = Survey(job, None, {}).walk()  # a fault of the input shows before anything is moved
            if options.dry_run:
                return _foretold(job, State("missing", 0, afresh.todo, [], afresh.first))
            for path in job.run.set_aside(job.stage):
                notice(f"moved aside: {path}")
        state, digests = surveyed(job)
        if state.kind == "stale" and not options.accept_stale:
            raise job.run.refusal(job.stage, state.reasons)
        if options.dry_run:
            return _foretold(job, state)
        if state.kind == "done" or (state.kind == "stale" and not state.todo and _is_sealed(job)):
            return _nothing_to_do(job, state, digests)
        return _produce(job, state, digests, options)


def _is_sealed(job: Job[P, R]) -> bool:
    part = job.run.manifest(job.stage, part=True)
    return part is None and not job.run.journal(job.stage).exists() and job.run.artifact(job.stage).exists()


def _foretold(job: Job[P, R], state: State) -> Summary:
    first = f"; first {unit_name(state.first)}" if state.first else ""
    estimate = history.estimate(job, state.todo) if state.todo else ""
    message = f"{job.stage}: {state.kind}; {state.recorded} units recorded, {state.todo} to do{first}{estimate}"
    return Summary(job.stage, Exit.DONE, message, None, [], forecast=state.kind != "done")


def _nothing_to_do(job: Job[P, R], state: State, digests: dict[str, str]) -> Summary:
    manifest = job.run.manifest(job.stage)
    if manifest is not None and state.kind == "stale":
        manifest.accepted = job.run.accepted(job.stage, state.reasons)
        manifest.identity, manifest.artifact = job.identity(), fingerprint(job.run.artifact(job.stage))
        job.run.finish(manifest)
        _note_units(job, digests)
    path = job.run.artifact(job.stage)
    if not job.whole():
        notice(f"{path} is there, and what belongs to it is made anew")
        with closing(Records(path, job.record)) as records:
            job.completed(records)
    return Summary(job.stage, Exit.DONE, f"{path} is complete: nothing to do", manifest, [])


def _note_units(job: Job[P, R], digests: dict[str, str]) -> None:
    content = msgspec.json.encode(noted(job.run, job.stage) | digests)
    write_atomic(job.run.notes(job.stage, "units.json"), [content])


def _produce(job: Job[P, R], state: State, digests: dict[str, str], options: Options) -> Summary:
    sealed, part = job.run.artifact(job.stage), job.run.journal(job.stage)
    earlier = job.run.manifest(job.stage, part=True) or job.run.manifest(job.stage)
    if sealed.exists() and not part.exists():
        unseal(sealed, part)
    identity, accepted = job.identity(), job.run.accepted(job.stage, state.reasons)
    spent = earlier.spent if earlier else Spent()
    job.run.begin(job.stage, identity, accepted, spent)
    _note_units(job, digests)
    journal = Journal(part, job.record, notice)
    try:
        shift = _shift(job, journal, state, options, _elsewhere(job, digests))
        spent += job.context.spent
        history.remember(job, job.context.spent)
        shift.list_failures()
        unfinished = shift.unfinished and not options.accept_failures
        if shift.interrupted or unfinished:
            job.run.begin(job.stage, identity, accepted, spent)
            return _unsealed(job, shift)
        job.completed(journal)
        manifest = _manifest(job, journal, shift, identity)
        journal.seal(sealed)
    finally:
        journal.close()
    manifest.accepted, manifest.artifact, manifest.spent = accepted, fingerprint(sealed), spent
    manifest.seconds = round(spent.seconds, 1)
    job.run.finish(manifest)
    return Summary(job.stage, Exit.DONE, f"{sealed}: {len(journal)} records", manifest, shift.failures)


def _elsewhere(job: Job[P, R], digests: dict[str, str]) -> list[Failure]:
    """Failures of earlier turns that today's plan says nothing of, such as those of a model that is not asked for."""
    known = job.run.failures(job.stage) if job.may_hold_more else []
    return [failure for failure in known if unit_name(failure.key) not in digests]


def _shift(
    job: Job[P, R], journal: Journal[R], state: State, options: Options, elsewhere: list[Failure]
) -> Shift[P, R]:
    """Do what is open, and count what it took."""
    started = time.monotonic()
    shift = Shift(job, journal, options.accept_failures, elsewhere)
    if state.todo:
        shift.run(open_units(job, journal), state.todo, state.recorded)
    job.context.spent += Spent(units=shift.recorded, seconds=time.monotonic() - started)
    return shift


def _manifest(job: Job[P, R], journal: Journal[R], shift: Shift[P, R], identity: Identity) -> Manifest:
    figures = job.figures(iter(journal))
    manifest = Manifest(stage=job.stage, identity=identity, left_out=shift.left_out)
    manifest.counts = {"units": len(journal), "failed": len(shift.failures), **figures.counts}
    manifest.figures, manifest.tokens = figures.values, figures.tokens
    return manifest


def _unsealed(job: Job[P, R], shift: Shift[P, R]) -> Summary:
    if shift.interrupted:
        raise Interrupted(job.stage)
    message = f"{len(shift.failures)} units failed; {job.run.artifact(job.stage)} stays unfinished"
    return Summary(job.stage, Exit.FAILED_UNITS, message, None, shift.failures)
