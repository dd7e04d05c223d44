"""What a stage leaves on the screen: its summary, failed units, and `sand status` over all stages."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from rich.table import Column, Table

from sandcli.core.context import Context
from sandcli.core.run import ARTIFACTS, STAGES, Manifest, Stage
from sandcli.errors import SandError
from sandcli.pipeline import state
from sandcli.records import Failure
from sandcli.settings import Settings

_LEFT_OUT: dict[str, set[Stage]] = {
    "none": set(),
    "critique": {"rollout", "critique"},
    "sampling": {"sample", "rollout", "critique"},
}
"""Stages that an ablation goes without."""


def stages_of(settings: Settings) -> list[Stage]:
    """The stages that a run consists of, in order."""
    left_out = _LEFT_OUT[settings.method.without] | ({"sft"} if settings.model.policy else set())
    return [stage for stage in STAGES if stage not in left_out]


def following(stage: Stage, context: Context) -> str:
    """The command that comes after a stage."""
    root, stages = context.run.root, stages_of(context.settings)
    later = [name for name in stages if STAGES.index(name) > STAGES.index(stage)]
    return f"sand {later[0]} --run {root}" if later else f"sand init --run NEXT --from {root}"


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
        failures = dict(Counter(failure.reason for failure in context.run.failures(stage)))
        try:
            limit = _limit(stage, context)
            kind, recorded, todo, reasons, _ = state(stage, Context(context.run, context.settings, limit))
        except SandError as error:  # one stage that cannot be judged does not hide the others
            there = any(path.exists() for path in (context.run.artifact(stage), context.run.journal(stage)))
            items.append(Item(stage, ARTIFACTS[stage], "unclear" if there else "missing", 0, 0, failures, error.what))
            continue
        note = "; ".join(reasons)
        if kind == "wider":
            note = f"the settings ask for {todo} units more"
        elif limit is not None and not note:
            note = f"with --limit {limit}"
        items.append(Item(stage, ARTIFACTS[stage], kind, recorded, todo, failures, note))
    return items


def _limit(stage: Stage, context: Context) -> int | None:
    """The `--limit` that a stage was last run with, which is no setting."""
    made = context.run.manifest(stage, part=True) or context.run.manifest(stage)
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
    rows |= manifest.spent.figures()
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
