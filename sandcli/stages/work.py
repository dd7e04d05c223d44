"""How a JSONL stage is planned, run, resumed and sealed; the same for all of them.

A stage is a `Job`: it plans its units of work (pure), and does one unit (not pure). Everything between is here:
compare with what is there already, run many units at once, journal each as it is done, retry and list what
machinery failed, stop when asked to, seal.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

import msgspec

from sandcli.errors import Exit, Interrupted, MachineryError, PrerequisiteError
from sandcli.progress import Bar, notice
from sandcli.records import Failure, Key
from sandcli.run import Identity, Manifest, Run, Stage
from sandcli.stages.context import Context, in_first
from sandcli.stages.interrupts import Interrupts
from sandcli.store import Journal, Records, unseal, write_atomic

_GIVE_UP_AFTER = 20
"""Failed units in a row after which a stage stops trying."""


class HasKey(Protocol):
    """A record."""

    @property
    def key(self) -> Key:
        """Its unit."""


P = TypeVar("P")
R = TypeVar("R", bound=HasKey)


@dataclass(frozen=True)
class Unit(Generic[P]):
    """One piece of work. `digest` hashes the inputs that its result depends on."""

    key: Key
    digest: str
    payload: P


class LeftOut(NamedTuple):
    """The verdict on a unit that makes no record, such as an expert path that does not reach its score."""

    reason: str


Do = Callable[[Unit[P], R | None], Awaitable[R | LeftOut]]
"""Does one unit; the second argument is an earlier record that does not satisfy what is asked for now."""


@dataclass
class Figures:
    """What a stage's summary and manifest tell about its records."""

    counts: dict[str, int] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    tokens: int = 0


class Job(ABC, Generic[P, R]):
    """One stage on one run."""

    stage: Stage
    record: type[R]
    may_hold_more = False
    """Whether the plan itself keeps to `limit` and to the tasks that are set, so that records outside it are fine.
    Otherwise the plan is all that the inputs hold, and a record outside it tells that an input changed."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.run: Run = context.run

    @abstractmethod
    def identity(self) -> Identity:
        """What the artifact depends on. Cheap: no simulator, no model."""

    @abstractmethod
    def plan(self) -> list[Unit[P]]:
        """Every unit that the inputs define, in canonical order. Pure."""

    @abstractmethod
    def opened(self) -> AbstractAsyncContextManager["Do[P, R]"]:
        """Open models and environments, and give the function that does a unit."""

    @abstractmethod
    def figures(self, records: Iterable[R]) -> Figures:
        """Summarise the records."""

    def satisfied(self, unit: Unit[P], record: R) -> bool:
        """Whether a record is all that is asked for now."""
        return True

    def completed(self, records: Iterable[R]) -> None:
        """Make what else belongs to the artifact, before it is sealed."""


class Options(NamedTuple):
    """What the command line asks of any stage."""

    force: bool = False
    accept_stale: bool = False
    accept_failures: bool = False
    dry_run: bool = False


class State(NamedTuple):
    """A stage's artifact held against what is asked for.

    `stale`: made from something else, and `reasons` says what. `wider`: finished, and more is asked for now.
    """

    kind: Literal["missing", "partial", "wider", "done", "stale"]
    recorded: int
    todo: list[Unit[Any]]
    reasons: list[str]


class Summary(NamedTuple):
    """How a stage ended."""

    stage: Stage
    exit: Exit
    message: str
    manifest: Manifest | None
    failures: list[Failure]
    forecast: bool = False


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
    if complete and made is not None and made.identity == identity:
        return State("done", made.counts.get("units", 0), [], [])
    units = job.plan()
    records = Records(there, job.record)
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
    old, new = made.identity.settings, identity.settings
    reasons = [f"{k}: was {old.get(k)}, is {new.get(k)}" for k in sorted(old | new) if old.get(k) != new.get(k)]
    planned = {unit.key: unit.digest for unit in units}
    before = _digests(job.run, job.stage)
    changed = [key for key in records.ordered_keys() if key in planned and before.get(_name(key)) != planned[key]]
    gone = [] if job.may_hold_more else [key for key in records.ordered_keys() if key not in planned]
    for what, keys in (("made from other input", changed), ("no longer in the input", gone)):
        if keys:
            reasons.append(f"{len(keys)} units {what}, first {_name(keys[0])}")
    return reasons


def _name(key: Key) -> str:
    return msgspec.json.encode(key).decode()


def _digests(run: Run, stage: Stage) -> dict[str, str]:
    path = run.notes(stage, "units.json")
    return msgspec.json.decode(path.read_bytes(), type=dict[str, str]) if path.exists() else {}


def work(job: Job[P, R], options: Options) -> Summary:
    """Bring a stage's artifact up to what is asked for: nothing, the rest, or all of it."""
    job.run.must_exist()
    with job.run.locked(job.stage):
        if options.force and not options.dry_run:
            for path in job.run.set_aside(job.stage):
                notice(f"moved aside: {path}")
        state = inspect(job)
        if state.kind == "stale" and not options.accept_stale:
            raise _refusal(job, state)
        if options.dry_run:
            return Summary(job.stage, Exit.DONE, _forecast(job, state), None, [], forecast=True)
        if state.kind == "done" or (state.kind == "stale" and not state.todo and job.run.artifact(job.stage).exists()):
            return _nothing_to_do(job, state)
        return _produce(job, state, options)


def _forecast(job: Job[P, R], state: State) -> str:
    first = f"; first {_name(state.todo[0].key)}" if state.todo else ""
    return f"{job.stage}: {state.kind}; {state.recorded} units recorded, {len(state.todo)} to do{first}"


def _refusal(job: Job[P, R], state: State) -> PrerequisiteError:
    return PrerequisiteError(
        f"{job.run.artifact(job.stage)} was made from something else: " + "; ".join(state.reasons),
        "--force moves it aside and redoes it, --accept-stale keeps it as it is",
    )


def _nothing_to_do(job: Job[P, R], state: State) -> Summary:
    manifest = job.run.manifest(job.stage)
    if manifest is not None and state.kind == "stale":
        manifest.accepted = state.reasons
        manifest.identity = job.identity()
        _note_units(job)
        job.run.finish(manifest)
    path = job.run.artifact(job.stage)
    return Summary(job.stage, Exit.DONE, f"{path} is complete: nothing to do", manifest, [])


def _note_units(job: Job[P, R]) -> None:
    digests = {_name(unit.key): unit.digest for unit in job.plan()}
    write_atomic(job.run.notes(job.stage, "units.json"), [msgspec.json.encode(digests)])


def _produce(job: Job[P, R], state: State, options: Options) -> Summary:
    started = time.monotonic()
    sealed, part = job.run.artifact(job.stage), job.run.journal(job.stage)
    if sealed.exists() and not part.exists():
        unseal(sealed, part)
    _note_units(job)
    job.run.begin(job.stage, job.identity())
    journal = Journal(part, job.record, notice)
    try:
        shift = _Shift(job, journal, patient=options.accept_failures)
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
    manifest = Manifest(stage=job.stage, identity=job.identity(), left_out=shift.left_out)
    manifest.accepted = state.reasons
    manifest.counts = {"units": len(journal), "failed": len(shift.failures), **figures.counts}
    manifest.figures, manifest.tokens = figures.values, figures.tokens
    manifest.seconds = round(time.monotonic() - started, 1)
    job.run.finish(manifest)
    return Summary(job.stage, Exit.DONE, f"{sealed}: {len(journal)} records", manifest, shift.failures)


def _unsealed(job: Job[P, R], shift: "_Shift[P, R]") -> Summary:
    message = f"{len(shift.failures)} units failed; {job.run.artifact(job.stage)} stays unfinished"
    return Summary(job.stage, Exit.FAILED_UNITS, message, None, shift.failures)


class _Shift(Generic[P, R]):
    """One process's turn at a stage: the units it does, and what became of them."""

    def __init__(self, job: Job[P, R], journal: Journal[R], patient: bool) -> None:
        """`patient`: try every unit, however many fail; who accepts failures wants all the others."""
        self._job = job
        self._journal = journal
        self._patient = patient
        self.failures: list[Failure] = []
        self.left_out: dict[str, str] = {}
        self.interrupted = False
        self.unfinished = False
        self._in_a_row = 0

    def run(self, todo: list[Unit[P]], recorded: int) -> None:
        """Do the units. An interrupt ends it early, after what is in flight."""
        total = recorded + len(todo)
        with Bar(self._job.stage, total, recorded).shown() as bar, Interrupts() as self._interrupts:
            asyncio.run(self._all(todo, bar))
        self.interrupted = self._interrupts.asked

    async def _all(self, todo: list[Unit[P]], bar: Bar) -> None:
        pending: set[asyncio.Task[None]] = set()
        source = iter(todo)
        async with self._job.opened() as do:
            try:
                while True:
                    self._hire(source, pending, do)
                    if not pending:
                        break
                    finished, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                    for task in finished:
                        task.result()
                        bar.advance()
            finally:
                for task in pending:
                    task.cancel()
        self.unfinished = bool(self.failures) or next(source, None) is not None

    def _hire(self, source: Any, pending: set["asyncio.Task[None]"], do: Do[P, R]) -> None:
        while len(pending) < self._job.context.settings.run.in_flight and not self._stopping():
            unit = next(source, None)
            if unit is None:
                return
            pending.add(asyncio.create_task(self._one(unit, do)))

    def _stopping(self) -> bool:
        hopeless = self._in_a_row >= _GIVE_UP_AFTER and not self._patient
        return self._interrupts.asked or hopeless

    async def _one(self, unit: Unit[P], do: Do[P, R]) -> None:
        """Do one unit, with retries; what comes of it is on disk before anything else happens."""
        earlier = self._journal.get(unit.key) if unit.key in self._journal else None
        attempts = 1 + self._job.context.settings.run.retries
        for attempt in range(1, attempts + 1):
            try:
                result = await do(unit, earlier)
            except MachineryError as error:
                if attempt == attempts or error.reason in ("replay_diverged", "context"):
                    self._failed(unit, error, attempt)
                    return
                continue
            break
        self._in_a_row = 0
        if isinstance(result, LeftOut):
            self.left_out[_name(unit.key)] = result.reason
        else:
            self._journal.append(result)

    def _failed(self, unit: Unit[P], error: MachineryError, attempts: int) -> None:
        self._in_a_row += 1
        failure = Failure(unit=list(unit.key), reason=error.reason, detail=error.detail, attempts=attempts)
        self.failures.append(failure)
        self._job.run.set_failures(self._job.stage, self.failures)
