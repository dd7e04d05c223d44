"""How a stage's artifact stands: what its plan asks for, held against what is recorded."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Generic, Literal

import msgspec

from sandcli.core.run import Identity, Manifest, Run, Stage, differences
from sandcli.core.stage import Job, P, R, State, Unit, unit_name
from sandcli.core.store import Records
from sandcli.models import fingerprint
from sandcli.records import Key


@dataclass
class Survey(Generic[P, R]):
    """One walk through a plan. Only keys and digests are kept, never the units: there may be a great many."""

    job: Job[P, R]
    records: "Records[R] | None"
    before: dict[str, str]
    digests: dict[str, str] = field(default_factory=dict)
    changed: list[Key] = field(default_factory=list)
    known: set[Key] = field(default_factory=set)
    todo: int = 0
    first: Key | None = None

    def walk(self) -> "Survey[P, R]":
        """Go through the whole plan."""
        ids: set[Any] = set()
        for unit in self.job.plan():
            ids.add(unit.key[0])
            name = unit_name(unit.key)
            self.digests[name] = unit.digest
            if self.records is not None and unit.key in self.records:
                self.known.add(unit.key)
                if self.before.get(name) != unit.digest:
                    self.changed.append(unit.key)
            if within(self.job, ids) and is_open(self.job, unit, self.records):
                self.todo += 1
                self.first = self.first or unit.key
        return self


def within(job: Job[P, R], ids: set[Any]) -> bool:
    """Whether a plan that has come to so many trajectories is still inside the limit."""
    limit = job.context.limit
    return job.may_hold_more or limit is None or len(ids) <= limit


def is_open(job: Job[P, R], unit: Unit[P], records: "Records[R] | None") -> bool:
    """Whether a unit is still to be done."""
    if records is None or unit.key not in records:
        return True
    return not job.satisfied(unit, records.get(unit.key))


def open_units(job: Job[P, R], records: Records[R]) -> Iterator[Unit[P]]:
    """The units that are wanted and not done, one at a time."""
    ids: set[Any] = set()
    for unit in job.plan():
        ids.add(unit.key[0])
        if not within(job, ids):
            return
        if is_open(job, unit, records):
            yield unit


def inspect(job: Job[P, R]) -> State:
    """Compare a stage's artifact with today's settings and inputs. Changes nothing."""
    return surveyed(job)[0]


def surveyed(job: Job[P, R]) -> tuple[State, dict[str, str]]:
    """The same, with the digest of every unit that the plan holds, by its name."""
    sealed, journal = job.run.artifact(job.stage), job.run.journal(job.stage)
    there = journal if journal.exists() else sealed if sealed.exists() else None
    if there is None:
        return _missing(job)
    identity = job.identity()
    part = job.run.manifest(job.stage, part=True)
    made = part or job.run.manifest(job.stage)
    complete = there is sealed and part is None and made is not None
    if complete and made is not None and made.identity == identity and made.artifact == fingerprint(sealed):
        return State("done", made.counts.get("units", 0), 0, []), {}
    with closing(Records(there, job.record)) as records:
        if there is journal and not len(records):
            return _missing(job)  # a start that came to nothing binds nobody
        survey = Survey(job, records, noted(job.run, job.stage)).walk()
        reasons = _changes(made, identity, survey, records)
        kind = _kind(bool(reasons), complete, bool(survey.todo))
        return State(kind, len(records), survey.todo, reasons, survey.first), survey.digests


def _missing(job: Job[P, R]) -> tuple[State, dict[str, str]]:
    survey: Survey[P, R] = Survey(job, None, {}).walk()
    return State("missing", 0, survey.todo, [], survey.first), survey.digests


def _kind(stale: bool, complete: bool, todo: bool) -> Literal["partial", "wider", "done", "stale"]:
    if stale:
        return "stale"
    if not complete:
        return "partial"
    return "wider" if todo else "done"


def _changes(made: Manifest | None, identity: Identity, survey: Survey[P, R], records: Records[R]) -> list[str]:
    """What differs from what the records were made from; nothing where they still hold."""
    if made is None:
        return [f"{records.path} has no manifest"]
    reasons = differences(made.identity, identity)
    gone = [] if survey.job.may_hold_more else [key for key in records.ordered_keys() if key not in survey.known]
    return reasons + list(_counted(("made from other input", survey.changed), ("no longer in the input", gone)))


def _counted(*kinds: tuple[str, list[Key]]) -> Iterable[str]:
    return (f"{len(keys)} units {what}, first {unit_name(keys[0])}" for what, keys in kinds if keys)


def noted(run: Run, stage: Stage) -> dict[str, str]:
    """The digests of the units as they were when their records were made."""
    path = run.notes(stage, "units.json")
    return msgspec.json.decode(path.read_bytes(), type=dict[str, str]) if path.exists() else {}
