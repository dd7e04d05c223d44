"""The state of a run's stages for `sand status`, and what a stage prints when it ends: its summary and failures."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from rich.console import RenderableType
from rich.table import Column, Table
from rich.text import Text

from sandcli.core.artifact import Artifact, StageName
from sandcli.core.cluster.notes import noted
from sandcli.core.context import Context
from sandcli.core.manifest import Manifest
from sandcli.core.planner import inspect
from sandcli.core.run import ARTIFACTS
from sandcli.core.stage import State
from sandcli.errors import SandError
from sandcli.models import nothing_fetched
from sandcli.pipeline import TABLE, row
from sandcli.plans import stages_in
from sandcli.records import Failure
from sandcli.terminal import entry, literal

_COLOURS = {"done": "green", "wider": "green", "partial": "yellow", "stale": "red", "unclear": "red", "missing": "dim"}
_FAILED = 10
"""How many failed units are listed."""

_DIFFERENT = "accepted, with texts that differ from the recording"


class StageStatus(NamedTuple):
    """The state of one stage. `failures` counts failed units by reason."""

    stage: str
    artifact: str
    state: str
    recorded: int
    todo: int
    failures: dict[str, int]
    note: str


def status_of(context: Context) -> list[StageStatus]:
    """The state of every stage of a run, and of others that were begun."""
    own = stages_in(context.run, context.settings)
    made = {ARTIFACTS[name].name for name in own}  # train and prefer make the same folder
    others = (row.name for row in TABLE if ARTIFACTS[row.name].name not in made)
    begun = [name for name in others if context.run.artifact(name).begun()]
    with nothing_fetched():
        return [_status(stage, context) for stage in (*own, *begun)]


def _status(stage: StageName, context: Context) -> StageStatus:
    artifact, name = context.run.artifact(stage), ARTIFACTS[stage].name
    failures: dict[str, int] = {}
    try:
        failures = dict(Counter(failure.reason for failure in artifact.failures()))
        limit = _limit(stage, context)
        state = inspect(row(stage).stage(Context(context.run, context.settings, limit)))
    except (SandError, OSError) as error:  # a stage that cannot be inspected does not hide the others
        exists = artifact.path.exists() or artifact.journal.exists()
        why = error.what if isinstance(error, SandError) else str(error)
        return StageStatus(stage, name, "unclear" if exists else "missing", 0, 0, failures, why)
    kind, note = "stale" if state.edited else state.kind, _crews(artifact) or _note(state, limit)
    return StageStatus(stage, name, kind, state.recorded, state.todo, failures, note)


def _note(state: State, limit: int | None) -> str:
    if state.edited and not state.reasons:
        return "changed after the stage finished; run the stage again to check it"
    if state.kind == "wider":
        return f"the settings ask for {state.todo} more units"
    if state.reasons:
        return "; ".join(state.reasons)
    return "" if limit is None else f"with --limit {limit}"


def _crews(artifact: Artifact[Any]) -> str:
    """Who is working on an artifact on a cluster now; empty if nobody is."""
    crews = noted(artifact)
    if not crews:
        return ""
    working, nodes = sum(crew.working for crew in crews), Counter(crew.node for crew in crews)
    where = ", ".join(f"{count} on {node}" for node, count in nodes.items())
    return f"crews at work: {where}; {working} units in progress"


def _limit(stage: StageName, context: Context) -> int | None:
    """The `--limit` of the stage's last run, which is not a setting."""
    made = context.run.artifact(stage).newest_manifest()
    return made.identity.limit if made else None


def status_view(stages: Sequence[StageStatus]) -> Iterator[RenderableType]:
    """`sand status` for the terminal: a table whose names and states are whole at 80 columns, then the notes."""
    names = [Column(name, no_wrap=True) for name in ("stage", "artifact", "state")]
    numbers = [Column(name, no_wrap=True, justify="right") for name in ("recorded", "to do", "failed")]
    table, notes = Table(*names, *numbers), dict[str, list[str]]()
    for stage in stages:
        state = Text("done" if stage.state == "wider" else stage.state, _COLOURS[stage.state])
        counts = (stage.recorded, stage.todo, sum(stage.failures.values()))
        table.add_row(stage.stage, stage.artifact, state, *map(str, counts))
        reasons = ", ".join(f"{count} {reason}" for reason, count in stage.failures.items())
        for note in (stage.note, f"failed units: {reasons}" if reasons else ""):
            notes.setdefault(note, []).append(stage.stage)
    yield table
    yield from (literal(f"{', '.join(names)}: {note}") for note, names in notes.items() if note)


def summary_view(manifest: Manifest) -> Iterator[RenderableType]:
    """A stage's summary: counts and rates in a table, then what it left out and what differs, by kind."""
    table = Table(title=literal(manifest.stage), show_header=False)
    rows: dict[str, int | float | str] = {**manifest.counts, **manifest.figures}
    if manifest.tokens:
        rows["tokens"] = manifest.tokens
    rows |= manifest.spent.rates()
    if manifest.left_out:
        rows["left out"] = len(manifest.left_out)
    rows["seconds"] = manifest.seconds
    for name, value in rows.items():
        table.add_row(literal(name.replace("_", " ")), value if isinstance(value, str) else f"{round(value, 4):,}")
    yield table
    yield from _kinds_view({"left out": _by_kind(manifest.left_out), _DIFFERENT: manifest.differences})


_Kinds = Mapping[str, tuple[int, str]]
"""How many units of each kind there are, and the first of them."""


def _by_kind(left_out: Mapping[str, str]) -> _Kinds:
    """Units that were left out, by the kind of their reason: the text before the first colon."""
    kinds: dict[str, tuple[int, str]] = {}
    for unit, reason in left_out.items():
        kind, _, detail = reason.partition(": ")
        count, first = kinds.get(kind, (0, f"{_spoken(unit)} {detail}"))
        kinds[kind] = (count + 1, first)
    return kinds


def _spoken(unit: str) -> str:
    """A unit's name as a person writes it; a trajectory's id is one already."""
    with contextlib.suppress(msgspec.DecodeError):
        return " ".join(map(str, msgspec.json.decode(unit, type=list[str | int])))
    return unit


def _kinds_view(groups: Mapping[str, _Kinds]) -> Iterator[RenderableType]:
    """One table of groups of kinds, the most frequent first."""
    table = Table(Column("units", justify="right"), Column("why"), Column("the first", overflow="fold"))
    for title, kinds in groups.items():
        if kinds:
            table.add_section()
            table.add_row("", literal(title, "bold"), "")
        for kind, (count, first) in sorted(kinds.items(), key=lambda item: -item[1][0]):
            table.add_row(f"{count:,}", literal(kind), literal(first))
    if table.row_count:
        yield table


def failures_view(failures: Sequence[Failure]) -> Iterator[RenderableType]:
    """The units that the engine or the environment failed, the first ones with details."""
    yield Text(f"{len(failures)} failed units" if len(failures) > 1 else "1 failed unit", "bold red")
    for failure in failures[:_FAILED]:
        attempts = "1 attempt" if failure.attempts == 1 else f"{failure.attempts} attempts"
        yield entry(" ".join(map(str, failure.unit)), f"{failure.reason}, {attempts}: {failure.detail}")
    if len(failures) > _FAILED:
        yield Text(f"and {len(failures) - _FAILED} more")
