"""What a stage leaves on the screen: its summary, failed units, and `sand status` over all stages."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from rich.table import Column, Table

from sandcli.core.artifact import StageName
from sandcli.core.context import Context
from sandcli.core.manifest import Manifest
from sandcli.core.planner import inspect
from sandcli.core.run import ARTIFACTS
from sandcli.errors import SandError
from sandcli.pipeline import row, stages_of
from sandcli.records import Failure


class Item(NamedTuple):
    """One stage of a run."""

    stage: str
    artifact: str
    state: str
    recorded: int
    todo: int
    failures: dict[str, int]
    note: str


def listing(context: Context) -> list[Item]:
    """The state of every stage."""
    items = []
    for stage in stages_of(context.settings):
        artifact, name = context.run.artifact(stage), ARTIFACTS[stage].name
        failures: dict[str, int] = {}
        try:
            failures = dict(Counter(failure.reason for failure in artifact.failures()))
            limit = _limit(stage, context)
            state = inspect(row(stage).stage(Context(context.run, context.settings, limit)))
        except SandError as error:  # one stage that cannot be judged does not hide the others
            there = artifact.path.exists() or artifact.journal.exists()
            items.append(Item(stage, name, "unclear" if there else "missing", 0, 0, failures, error.what))
            continue
        note = "; ".join(state.reasons)
        if state.kind == "wider":
            note = f"the settings ask for {state.todo} more units"
        elif limit is not None and not note:
            note = f"with --limit {limit}"
        items.append(Item(stage, name, state.kind, state.recorded, state.todo, failures, note))
    return items


def _limit(stage: StageName, context: Context) -> int | None:
    """The `--limit` that a stage was last run with; it is not a setting."""
    made = context.run.artifact(stage).newest_manifest()
    return made.identity.limit if made else None


def table(items: Sequence[Item]) -> Table:
    """`sand status` for the terminal."""
    drawn = Table("stage", "artifact", "state", "recorded", "to do", "failed", Column("note", overflow="fold"))
    colours = {
        "done": "green",
        "wider": "green",
        "partial": "yellow",
        "stale": "red",
        "unclear": "red",
        "missing": "dim",
    }
    for item in items:
        failed = ", ".join(f"{count} {reason}" for reason, count in item.failures.items())
        state = f"[{colours[item.state]}]{'done' if item.state == 'wider' else item.state}[/]"
        drawn.add_row(item.stage, item.artifact, state, str(item.recorded), str(item.todo), failed, item.note)
    return drawn


def summary_table(manifest: Manifest) -> Table:
    """What a stage did, in a few lines."""
    drawn = Table(title=manifest.stage, show_header=False)
    rows: dict[str, int | float] = {**manifest.counts, **manifest.figures}
    if manifest.tokens:
        rows["tokens"] = manifest.tokens
    rows |= manifest.spent.rates()
    if manifest.left_out:
        rows["left out"] = len(manifest.left_out)
    rows["seconds"] = manifest.seconds
    for name, value in rows.items():
        drawn.add_row(name.replace("_", " "), f"{round(value, 4):,}")
    for name, reason in list(manifest.left_out.items())[:5]:
        drawn.add_row(f"left out {name}", reason)
    return drawn


def failures_table(failures: Sequence[Failure]) -> Table:
    """The units that machinery kept from being done, the first few whole."""
    drawn = Table("unit", "reason", "attempts", "detail", title=f"{len(failures)} failed units")
    for failure in failures[:10]:
        drawn.add_row(" ".join(map(str, failure.unit)), failure.reason, str(failure.attempts), failure.detail)
    return drawn
