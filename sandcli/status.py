"""The state of a run's stages for `sand status`, and what a stage prints when it ends: its summary and failures."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from rich.console import RenderableType
from rich.table import Column, Table
from rich.text import Text

from sandcli.core.artifact import StageName
from sandcli.core.context import Context
from sandcli.core.manifest import Manifest
from sandcli.core.planner import inspect
from sandcli.core.run import ARTIFACTS
from sandcli.core.stage import State
from sandcli.errors import SandError
from sandcli.models import nothing_fetched
from sandcli.pipeline import row, stages_of
from sandcli.records import Failure
from sandcli.terminal import entry, literal

_COLOURS = {"done": "green", "wider": "green", "partial": "yellow", "stale": "red", "unclear": "red", "missing": "dim"}
_FAILED, _LEFT_OUT = 10, 5
"""Failed units and left-out units that are listed."""


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
    """The state of every stage of a run."""
    with nothing_fetched():
        return [_status(stage, context) for stage in stages_of(context.settings)]


def _status(stage: StageName, context: Context) -> StageStatus:
    artifact, name = context.run.artifact(stage), ARTIFACTS[stage].name
    failures: dict[str, int] = {}
    try:
        failures = dict(Counter(failure.reason for failure in artifact.failures()))
        limit = _limit(stage, context)
        state = inspect(row(stage).stage(Context(context.run, context.settings, limit)))
    except SandError as error:  # a stage that cannot be inspected does not hide the others
        exists = artifact.path.exists() or artifact.journal.exists()
        return StageStatus(stage, name, "unclear" if exists else "missing", 0, 0, failures, error.what)
    return StageStatus(stage, name, state.kind, state.recorded, state.todo, failures, _note(state, limit))


def _note(state: State, limit: int | None) -> str:
    if state.kind == "wider":
        return f"the settings ask for {state.todo} more units"
    if state.reasons:
        return "; ".join(state.reasons)
    return "" if limit is None else f"with --limit {limit}"


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
    """What a stage did: counts and rates in a table, then the first units that it left out."""
    table = Table(title=literal(manifest.stage), show_header=False)
    rows: dict[str, int | float] = {**manifest.counts, **manifest.figures}
    if manifest.tokens:
        rows["tokens"] = manifest.tokens
    rows |= manifest.spent.rates()
    if manifest.left_out:
        rows["left out"] = len(manifest.left_out)
    rows["seconds"] = manifest.seconds
    for name, value in rows.items():
        table.add_row(literal(name.replace("_", " ")), f"{round(value, 4):,}")
    yield table
    yield from (entry(f"left out: {unit}", reason) for unit, reason in islice(manifest.left_out.items(), _LEFT_OUT))


def failures_view(failures: Sequence[Failure]) -> Iterator[RenderableType]:
    """The units that the engine or the environment failed, the first ones with details."""
    yield Text(f"{len(failures)} failed units" if len(failures) > 1 else "1 failed unit", "bold red")
    for failure in failures[:_FAILED]:
        attempts = "1 attempt" if failure.attempts == 1 else f"{failure.attempts} attempts"
        yield entry(" ".join(map(str, failure.unit)), f"{failure.reason}, {attempts}: {failure.detail}")
    if len(failures) > _FAILED:
        yield Text(f"and {len(failures) - _FAILED} more")
