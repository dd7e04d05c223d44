"""Compares what a stage's plan asks for with what is recorded. Reads only."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol

from sandcli.core.artifact import Artifact
from sandcli.core.manifest import Identity, Manifest
from sandcli.core.stage import P, R, Stage, State, Unit, unit_name
from sandcli.models import fingerprint
from sandcli.records import Key


class Recorded(Protocol):
    """What is recorded: a journal, a sealed file, or a finished folder."""

    def __contains__(self, key: Key) -> bool: ...

    def __len__(self) -> int: ...

    def ordered_keys(self) -> list[Key]:
        """The units that are done."""

    def get(self, key: Key) -> Any:
        """The record of one of them."""


class _FinishedFolder(dict[Key, None]):
    """A finished folder is the record of the stage's only unit."""

    def ordered_keys(self) -> list[Key]:
        """See `Recorded`."""
        return list(self)


@dataclass
class _Walk(Generic[P, R]):
    """One walk through a plan. It keeps keys and digests only, never units: there may be very many."""

    stage: Stage[P, R]
    recorded: Recorded
    before: dict[str, str]
    digests: dict[str, str] = field(default_factory=dict)
    changed: list[Key] = field(default_factory=list)
    known: set[Key] = field(default_factory=set)
    todo: int = 0
    first: Key | None = None

    def through(self, units: Iterable[Unit[P]]) -> "_Walk[P, R]":
        ids: set[Any] = set()
        for unit in units:
            ids.add(unit.key[0])
            self.digests[unit.name] = digest = unit.digest
            if unit.key in self.recorded:
                self.known.add(unit.key)
                if self.before.get(unit.name) != digest:
                    self.changed.append(unit.key)
            if _within_limit(self.stage, ids) and _is_open(self.stage, unit, self.recorded):
                self.todo += 1
                self.first = self.first or unit.key
        return self

    def reasons(self) -> Iterator[str]:
        """Why recorded units no longer hold."""
        if self.changed:
            yield f"{len(self.changed)} units made from other input, first {unit_name(self.changed[0])}"
        gone = [] if self.stage.allow_extra else [key for key in self.recorded.ordered_keys() if key not in self.known]
        if gone:
            yield f"{len(gone)} units no longer in the input, first {unit_name(gone[0])}"


def inspect(stage: Stage[P, R]) -> State:
    """Compare a stage's artifact with today's settings and inputs."""
    return compare(stage)[0]


def from_scratch(stage: Stage[P, R]) -> tuple[State, dict[str, str]]:
    """What there would be to do if nothing was recorded, and the digest of every unit's input by its name."""
    stage.check_redo()
    walk: _Walk[P, R] = _Walk(stage, _FinishedFolder(), {}).through(stage.units())
    return State("missing", 0, walk.todo, [], walk.first), walk.digests


def compare(stage: Stage[P, R]) -> tuple[State, dict[str, str]]:
    """The stage's state, and the digest of every unit's input by its name (empty if nothing changed at all)."""
    artifact = stage.artifact
    recorded = _recorded(stage)
    if recorded is None:
        return from_scratch(stage)
    made, identity = artifact.newest_manifest(), stage.identity()
    complete = is_sealed(artifact) and made is not None
    if complete and made is not None and made.identity == identity and _describes(made, identity, artifact):
        return State("done", made.counts.get("units", 1), 0, []), {}
    walk: _Walk[P, R] = _Walk(stage, recorded, artifact.digests()).through(stage.units())
    edited = complete and made is not None and bool(made.artifact) and made.artifact != fingerprint(artifact.path)
    reasons = [*_changed_settings(artifact.path, made, identity), *(walk.reasons() if made else ())]
    count = len(recorded) if artifact.record is not None else int(complete)
    if reasons:
        return State("stale", count, walk.todo, reasons, walk.first, edited=edited), walk.digests
    kind: Any = "partial" if not complete else "wider" if walk.todo else "done"
    refresh = kind == "done" and made is not None and not _describes(made, identity, artifact)
    return State(kind, count, walk.todo, [], walk.first, refresh, edited), walk.digests


def _recorded(stage: Stage[P, R]) -> Recorded | None:
    """What is recorded; None if that is nothing, or work that came to nothing."""
    artifact = stage.artifact
    if artifact.record is not None:
        records = artifact.recorded()
        empty = records is not None and not len(records) and artifact.journal.exists()
        return None if empty else records
    if is_sealed(artifact):
        return _FinishedFolder((unit.key, None) for unit in stage.units())
    return _FinishedFolder() if artifact.manifest(part=True) and stage.binds() else None


def is_sealed(artifact: Artifact[Any]) -> bool:
    """Whether the artifact is finished and no work on it is in progress."""
    if not artifact.path.exists():
        return False
    if not artifact.journal.exists() and artifact.manifest(part=True) is None:
        return True
    # A kill may leave the journal of a folder behind; deleting it takes long, and what is sealed stays sealed.
    made = artifact.manifest()
    return artifact.record is None and made is not None and made.artifact == fingerprint(artifact.path)


def _describes(made: Manifest, identity: Identity, artifact: Artifact[Any]) -> bool:
    """Whether a manifest describes today's inputs, the artifact, and what is derived from it."""
    known = made.identity.inputs
    if any(known.get(name, value) != value for name, value in identity.inputs.items()):
        return False
    if made.artifact and made.artifact != fingerprint(artifact.path):
        return False
    return all(path.exists() and made.derived.get(name) == fingerprint(path) for name, path in artifact.derived.items())


def _changed_settings(path: Path, made: Manifest | None, identity: Identity) -> list[str]:
    if made is None:
        return [f"{path} has no manifest"]
    old, new = made.identity.settings, identity.settings
    return [
        f"{key}: was {old.get(key)}, is {new.get(key)}" for key in sorted(old | new) if old.get(key) != new.get(key)
    ]


def open_units(stage: Stage[P, R], recorded: Recorded) -> Iterator[Unit[P]]:
    """The units that are wanted and not done, one at a time."""
    ids: set[Any] = set()
    for unit in stage.units():
        ids.add(unit.key[0])
        if not _within_limit(stage, ids):
            return
        if _is_open(stage, unit, recorded):
            yield unit


def _within_limit(stage: Stage[P, R], ids: set[Any]) -> bool:
    """Whether a plan that has reached so many trajectories is still within `--limit`."""
    return stage.allow_extra or stage.limit is None or len(ids) <= stage.limit


def _is_open(stage: Stage[P, R], unit: Unit[P], recorded: Recorded) -> bool:
    if unit.key not in recorded:
        return True
    return stage.artifact.record is not None and not stage.satisfied(unit, recorded.get(unit.key))
