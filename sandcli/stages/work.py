"""How a JSONL stage is compared with what is there already, brought up to date, and sealed."""

import time
from typing import Literal

import msgspec

from sandcli.errors import Exit, Interrupted
from sandcli.models import fingerprint
from sandcli.progress import notice
from sandcli.run import Identity, Manifest, Run, Stage, differences
from sandcli.stages.context import in_first
from sandcli.stages.job import Job, Options, P, R, State, Summary, Unit, unit_name
from sandcli.stages.shift import Shift
from sandcli.store import Journal, Records, unseal, write_atomic


def inspect(job: Job[P, R]) -> State:
    """Compare a stage's artifact with today's settings and inputs. Changes nothing."""
    sealed, journal = job.run.artifact(job.stage), job.run.journal(job.stage)
    there = journal if journal.exists() else sealed if sealed.exists() else None
    if there is None:
        return State("missing", 0, _wanted(job, job.plan()), [])
    identity = job.identity()
    part = job.run.manifest(job.stage, part=True)
    made = part or job.run.manifest(job.stage)
    complete = there is sealed and part is None and made is not None
    if complete and made is not None and made.identity == identity and made.artifact == fingerprint(sealed):
        return State("done", made.counts.get("units", 0), [], [])
    units = job.plan()
    records = Records(there, job.record)
    if there is journal and not len(records):
        records.close()
        return State("missing", 0, _wanted(job, units), [])  # a start that came to nothing binds nobody
    try:
        reasons = _changes(job, made, identity, units, records)
        todo = _todo(job, units, records)
    finally:
        records.close()
    kind = _kind(bool(reasons), complete, bool(todo))
    return State(kind, len(records), todo, reasons)


def _kind(stale: bool, complete: bool, todo: bool) -> Literal["partial", "wider", "done", "stale"]:
    if stale:
        return "stale"
    if not complete:
        return "partial"
    return "wider" if todo else "done"


def _wanted(job: Job[P, R], units: list[Unit[P]]) -> list[Unit[P]]:
    if job.may_hold_more:
        return units
    kept = in_first((unit.key for unit in units), job.context.limit)
    return [unit for unit in units if unit.key in kept]


def _todo(job: Job[P, R], units: list[Unit[P]], records: Records[R]) -> list[Unit[P]]:
    def is_open(unit: Unit[P]) -> bool:
        return unit.key not in records or not job.satisfied(unit, records.get(unit.key))

    return [unit for unit in _wanted(job, units) if is_open(unit)]


def _changes(
    job: Job[P, R], made: Manifest | None, identity: Identity, units: list[Unit[P]], records: Records[R]
) -> list[str]:
    """What differs from what the records were made from; nothing where they still hold."""
    if made is None:
        return [f"{records.path} has no manifest"]
    reasons = differences(made.identity, identity)
    planned = {unit.key: unit.digest for unit in units}
    before = _digests(job.run, job.stage)
    changed = [key for key in records.ordered_keys() if key in planned and before.get(unit_name(key)) != planned[key]]
    gone = [] if job.may_hold_more else [key for key in records.ordered_keys() if key not in planned]
    for what, keys in (("made from other input", changed), ("no longer in the input", gone)):
        if keys:
            reasons.append(f"{len(keys)} units {what}, first {unit_name(keys[0])}")
    return reasons


def _digests(run: Run, stage: Stage) -> dict[str, str]:
    path = run.notes(stage, "units.json")
    return msgspec.json.decode(path.read_bytes(), type=dict[str, str]) if path.exists() else {}


def work(job: Job[P, R], options: Options) -> Summary:
    """Bring a stage's artifact up to what is asked for: nothing, the rest, or all of it."""
    job.run.must_exist()
    with job.run.locked(job.stage):
        if options.force:
            todo = _wanted(job, job.plan())  # what is wrong with the input shows before anything is moved
            if options.dry_run:
                return _foretold(job, State("missing", 0, todo, []))
            for path in job.run.set_aside(job.stage):
                notice(f"moved aside: {path}")
        state = inspect(job)
        if state.kind == "stale" and not options.accept_stale:
            raise job.run.refusal(job.stage, state.reasons)
        if options.dry_run:
            return _foretold(job, state)
        if state.kind == "done" or (state.kind == "stale" and not state.todo and _is_sealed(job)):
            return _nothing_to_do(job, state)
        return _produce(job, state, options)


def _is_sealed(job: Job[P, R]) -> bool:
    part = job.run.manifest(job.stage, part=True)
    return part is None and not job.run.journal(job.stage).exists() and job.run.artifact(job.stage).exists()


def _foretold(job: Job[P, R], state: State) -> Summary:
    first = f"; first {unit_name(state.todo[0].key)}" if state.todo else ""
    message = f"{job.stage}: {state.kind}; {state.recorded} units recorded, {len(state.todo)} to do{first}"
    return Summary(job.stage, Exit.DONE, message, None, [], forecast=True)


def _nothing_to_do(job: Job[P, R], state: State) -> Summary:
    manifest = job.run.manifest(job.stage)
    if manifest is not None and state.kind == "stale":
        manifest.accepted = _accepted(job, state)
        manifest.identity, manifest.artifact = job.identity(), fingerprint(job.run.artifact(job.stage))
        _note_units(job)
        job.run.finish(manifest)
    path = job.run.artifact(job.stage)
    return Summary(job.stage, Exit.DONE, f"{path} is complete: nothing to do", manifest, [])


def _note_units(job: Job[P, R]) -> None:
    digests = _digests(job.run, job.stage) | {unit_name(unit.key): unit.digest for unit in job.plan()}
    write_atomic(job.run.notes(job.stage, "units.json"), [msgspec.json.encode(digests)])


def _produce(job: Job[P, R], state: State, options: Options) -> Summary:
    started = time.monotonic()
    sealed, part = job.run.artifact(job.stage), job.run.journal(job.stage)
    if sealed.exists() and not part.exists():
        unseal(sealed, part)
    identity, accepted = job.identity(), _accepted(job, state)
    job.run.begin(job.stage, identity, accepted)
    _note_units(job)
    journal = Journal(part, job.record, notice)
    try:
        shift = Shift(job, journal, patient=options.accept_failures)
        if state.todo:
            shift.run(state.todo, state.recorded)
        job.run.set_failures(job.stage, shift.failures)
        if shift.interrupted:
            raise Interrupted(job.stage)
        if shift.unfinished and not options.accept_failures:
            return _unsealed(job, shift)
        job.completed(iter(journal))
        figures = job.figures(iter(journal))
        journal.seal(sealed)
    finally:
        journal.close()
    manifest = Manifest(stage=job.stage, identity=identity, left_out=shift.left_out)
    manifest.accepted, manifest.artifact = accepted, fingerprint(sealed)
    manifest.counts = {"units": len(journal), "failed": len(shift.failures), **figures.counts}
    manifest.figures, manifest.tokens = figures.values, figures.tokens
    manifest.seconds = round(time.monotonic() - started, 1)
    job.run.finish(manifest)
    return Summary(job.stage, Exit.DONE, f"{sealed}: {len(journal)} records", manifest, shift.failures)


def _accepted(job: Job[P, R], state: State) -> list[str]:
    """What was kept although it is stale, now and when the stage was begun."""
    earlier = job.run.manifest(job.stage, part=True) or job.run.manifest(job.stage)
    return list(dict.fromkeys([*(earlier.accepted if earlier else []), *state.reasons]))


def _unsealed(job: Job[P, R], shift: Shift[P, R]) -> Summary:
    message = f"{len(shift.failures)} units failed; {job.run.artifact(job.stage)} stays unfinished"
    return Summary(job.stage, Exit.FAILED_UNITS, message, None, shift.failures)
