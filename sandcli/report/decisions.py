"""Decision and deed: whether agents do what their deliberations decide."""

from collections import Counter
from collections.abc import Sequence

from sandcli.agent.form import listed_options
from sandcli.agent.turns import normalise
from sandcli.episodes import Episode
from sandcli.method.acceptance import conclusion
from sandcli.method.texts import paragraphs
from sandcli.records import Step
from sandcli.report.estimates import share
from sandcli.report.scores import AgentRow, Decisions, Score, suites_of
from sandcli.report.sheets import Cell, Sheet, SheetRow
from sandcli.report.tables import INTERVALS


def decided(thought: str) -> str | None:
    """The listed option that a deliberation decides for, normalised; None if its conclusion names none of them."""
    found = conclusion(paragraphs(thought), listed_options(thought))
    return found.decision if found else None


def decisions_of(episode: Episode) -> Decisions:
    """Counts of an episode's deliberated steps."""
    counts = Counter(_compared(step) for step in episode.steps if step.deliberated)
    return Decisions(counts["same"], counts["other"], counts["unread"])


def _compared(step: Step) -> str:
    decision = decided(step.thought)
    if decision is None:
        return "unread"
    return "same" if decision == normalise(step.action) else "other"


def decisions(rows: Sequence[AgentRow]) -> Sheet | None:
    """How often each agent does what it decides, by test set. None if no step was deliberated."""
    found = [
        SheetRow(row.group, row.label, [str(suite), *cells])
        for row in rows
        for suite in suites_of([row])
        if (cells := _cells(row.scores[suite]))
    ]
    notes = [
        "Over all deliberated steps. A decision is the listed option that the conclusion (So I will ...) names. same: "
        "the agent does it. other: it does something else. unread: there is no conclusion, or it names no listed "
        "option.",
        "same, %: of the steps whose decision can be read.",
        INTERVALS,
    ]
    columns = ["test set", "same", "other", "unread", "same, %"]
    return (
        Sheet("decisions", "Decision and deed at deliberated steps", "agent", columns, found, notes) if found else None
    )


def _cells(scores: Sequence[Score]) -> list[Cell]:
    """The counts and the share; empty if no step was deliberated."""
    counts = [score.decisions for score in scores]
    same, other, unread = (sum(column) for column in zip(*counts, strict=True))
    if not same + other + unread:
        return []
    read = [(one.same, one.same + one.other) for one in counts if one.same + one.other]
    return [same, other, unread, share(read).times(100) if read else None]
