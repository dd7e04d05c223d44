"""Plans a stage: compares what is asked for with what is recorded, and decides what there is to do. Reads only."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, NamedTuple, Protocol

from sandcli.core.artifact import Artifact
from sandcli.core.manifest import Identity, Manifest
from sandcli.core.stage import Options, P, R, Stage, State, Unit, unit_name
from sandcli.errors import PrerequisiteError
from sandcli.records import Key


class Plan(NamedTuple):
    """What a stage does next.

    `nothing`: the artifact is complete. `keep`: so is a folder that is stale or was edited, and the user accepts it.
    `resume`: do what is open, all of it if nothing is recorded. `redo`: move everything aside and start again.
    `digests`: the digest of every planned unit's input, by its name.
    """

    action: Literal["nothing", "keep", "resume", "redo"]
    state: State
    digests: dict[str, str]


def plan_stage(stage: Stage[P, R], options: Options) -> Plan:
    """Decide what a stage does. Raises `PrerequisiteError` for a stale artifact that the user does not accept."""
    if options.force and not _begun_by_force(stage):
        return Plan("redo", *from_scratch(stage))
    state, digests = compare(stage)
    if state.kind == "stale":
        stage.check_stale(state)
        if not (options.accept_stale and _can_be_kept(stage, state)):
            raise _refusal(stage, state)
    if state.edited and stage.artifact.record is None and not options.accept_stale:
        stage.artifact.require()  # raises that it was changed: the stage cannot check a model's content
    if state.edited and options.accept_stale:
        state = state._replace(todo=0)  # keep it as it is, even if units are missing
    if state.kind == "done" and not state.refresh:
        return Plan("nothing", state, digests)
    kept = stage.artifact.record is None and stage.artifact.is_sealed()
    return Plan("keep" if kept else "resume", state, digests)


def _begun_by_force(stage: Stage[P, R]) -> bool:
    """Whether `--force` began this very work earlier, so that it is resumed."""
    part = stage.artifact.manifest(part=True)
    return part is not None and part.forced and part.identity == stage.identity()


def _can_be_kept(stage: Stage[P, R], state: State) -> bool:
    """A half-trained model cannot be kept: finishing it would mix two configurations."""
    return stage.artifact.record is not None or bool(state.recorded)


def _refusal(stage: Stage[P, R], state: State) -> PrerequisiteError:
    artifact, why = stage.artifact, "; ".join(state.reasons)
    if not _can_be_kept(stage, state):
        return PrerequisiteError(
            f"{artifact.journal} was begun from something else: {why}", "--force moves it aside and starts again"
        )
    return PrerequisiteError(
        f"{artifact.path} was made from something else: {why}",
        "--force moves it aside and redoes it, --accept-stale keeps it as it is",
    )


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
    before: dict[str, str] | None
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
                if self.before is not None and self.before.get(unit.name) != digest:
                    self.changed.append(unit.key)
            if _within_limit(self.stage, ids) and _is_open(self.stage, unit, self.recorded):
                self.todo += 1
                self.first = self.first or unit.key
        return self

    def reasons(self) -> Iterator[str]:
        """Why recorded units no longer hold."""
        if self.changed and not self.before:
            yield f"the input of its units is unknown, because {self.stage.artifact.note('units.json')} is lost"
        elif self.changed:
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
    walk: _Walk[P, R] = _Walk(stage, _FinishedFolder(), None).through(stage.units())
    return State("missing", 0, walk.todo, [], walk.first), walk.digests


def compare(stage: Stage[P, R]) -> tuple[State, dict[str, str]]:
    """The stage's state, and the digest of every unit's input by its name (empty if nothing changed at all)."""
    artifact = stage.artifact
    recorded = _recorded(stage)
    if recorded is None:
        return from_scratch(stage)
    made, identity = artifact.newest_manifest(), stage.identity()
    sealed, before = artifact.is_sealed(), artifact.digests()
    edited = sealed and (made is None or artifact.is_edited(made))
    described = made is not None and not edited and _same_inputs(made, identity) and artifact.lists_failures()
    if sealed and before and described and made is not None and made.identity == identity:
        return State("done", made.counts.get("units", 1), 0, []), {}
    lost = not before and made is not None and _same_inputs(made, identity)  # the current digests are the lost ones
    walk: _Walk[P, R] = _Walk(stage, recorded, None if lost else before).through(stage.units())
    reasons = [*_changed_settings(artifact, made, identity), *(walk.reasons() if made else ())]
    count = len(recorded) if artifact.record is not None else int(sealed)
    if reasons:
        return State("stale", count, walk.todo, reasons, walk.first, edited=edited), walk.digests
    kind: Any = "partial" if not sealed else "wider" if walk.todo else "done"
    return State(kind, count, walk.todo, [], walk.first, kind == "done" and not described, edited), walk.digests


def came_to_nothing(stage: Stage[P, R]) -> bool:
    """Whether nothing is recorded, neither in a finished artifact nor in progress."""
    return _recorded(stage) is None


def _recorded(stage: Stage[P, R]) -> Recorded | None:
    """What is recorded; None if that is nothing, or work that came to nothing."""
    artifact = stage.artifact
    if artifact.record is not None:
        records = artifact.recorded()
        empty = records is not None and not len(records) and artifact.journal.exists()
        return None if empty else records
    if artifact.is_sealed():
        return _FinishedFolder((unit.key, None) for unit in stage.units())
    return _FinishedFolder() if stage.binds() else None


def _same_inputs(made: Manifest, identity: Identity) -> bool:
    known = made.identity.inputs
    return all(known.get(name, value) == value for name, value in identity.inputs.items())


def _changed_settings(artifact: Artifact[Any], made: Manifest | None, identity: Identity) -> list[str]:
    if made is None and artifact.note("json").exists():
        return [f"{artifact.note('json')} is damaged"]
    if made is None:
        return [f"{artifact.path} has no manifest"]
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


def longest_first(stage: Stage[P, R], recorded: Recorded) -> Iterator[Unit[P]]:
    """The same units, those that may take many steps first, so that no crew is still busy with one when all others are
    done.

    Lengths are compared by their number of binary digits: units of a trajectory mostly stay together, and there are few
    passes over the inputs.
    """
    sizes = {stage.length(unit).bit_length() for unit in open_units(stage, recorded)}
    for size in sorted(sizes, reverse=True):
        yield from (unit for unit in open_units(stage, recorded) if stage.length(unit).bit_length() == size)


def _within_limit(stage: Stage[P, R], ids: set[Any]) -> bool:
    """Whether a plan that has reached so many trajectories is still within `--limit`."""
    return stage.allow_extra or stage.limit is None or len(ids) <= stage.limit


def _is_open(stage: Stage[P, R], unit: Unit[P], recorded: Recorded) -> bool:
    if unit.key not in recorded:
        return True
    return stage.artifact.record is not None and not stage.satisfied(unit, recorded.get(unit.key))
