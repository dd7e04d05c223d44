"""Tables beside the paper's: success, differences on the same tasks, task types, difficulty, and Figure 3's numbers."""

from collections.abc import Sequence
from statistics import fmean, median

from sandcli.report.bands import BANDS, banded
from sandcli.report.compare import difference, reference
from sandcli.report.estimates import wilson
from sandcli.report.scores import Row, Score, by_group, held_out, suites_of, worlds_of
from sandcli.report.sheets import Cell, Line, Sheet
from sandcli.report.tables import INTERVALS, reward, tasks_note


def success(rows: Sequence[Row]) -> Sheet:
    """The share of tasks done, in per cent."""
    suites = suites_of(rows)
    lines = [Line(row.group, row.label, [_success(row.scores.get(suite)) for suite in suites]) for row in rows]
    notes = ["Intervals: Wilson's 95 % score intervals.", tasks_note(rows)]
    return Sheet("success", "Success rate, %", "agent", [*map(str, suites)], lines, notes)


def differences(rows: Sequence[Row]) -> Sheet | None:
    """Every row against SFT, or what stands in for it; none where there is nothing to pair."""
    lines = []
    for members in by_group(rows).values():
        for row, suite in [(member, suite) for member in members for suite in suites_of([member])]:
            against = reference(row, suite, members)
            found = difference(row.scores[suite], against.scores[suite]) if against else None
            if against and found:
                lines.append(Line(row.group, row.label, [against.label, str(suite), found.tasks, found]))
    notes = ["On the tasks that both have.", INTERVALS]
    title = "Paired differences in average reward x100"
    columns = ["against", "test set", "tasks", "difference"]
    return Sheet("differences", title, "agent", columns, lines, notes) if lines else None


def types(rows: Sequence[Row]) -> Sheet | None:
    """Average reward x100 by task type, a column a row of the other tables."""
    labels = list(dict.fromkeys(row.label for row in rows))
    lines = []
    for group, members in by_group(rows).items():
        for world in worlds_of(members):
            by_label = {row.label: row.held_out(world) for row in members}
            kinds = sorted({score.kind for scores in by_label.values() for score in scores})
            for kind in kinds:
                own = {label: [s for s in scores if s.kind == kind] for label, scores in by_label.items()}
                lines.append(Line(group, kind, [reward(own.get(label)) for label in labels]))
    notes = [INTERVALS, "Over the seen and unseen tasks together.", tasks_note(rows, held_out(rows))]
    return Sheet("types", "Average reward x100 by task type", "task type", labels, lines, notes) if lines else None


def difficulty(rows: Sequence[Row]) -> Sheet | None:
    """Reward and deliberation rate in the three bands; none where no base model was evaluated."""
    lines, notes = [], [INTERVALS, "Bands: tertiles of the base model's reward on the same tasks, seen and unseen."]
    for row, world, limits, scores in banded(rows):
        for band in BANDS:
            rate = 100 * median([score.deliberation_rate for score in scores[band]]) if scores[band] else None
            cells: list[Cell] = [world, band, len(scores[band]), reward(scores[band]), rate]
            lines.append(Line(row.group, row.label, cells))
        notes.append(f"{row.group}, {world}: hard up to {limits.hard:.2f}, easy above {limits.medium:.2f}.")
        if row.kind == "base":
            notes += [f"{row.group}, {world}: no task is {band}." for band in BANDS if not scores[band]]
    title = "Average reward x100 and median deliberation rate by difficulty"
    columns = ["world", "band", "tasks", "reward", "rate, %"]
    return Sheet("difficulty", title, "agent", columns, lines, list(dict.fromkeys(notes))) if lines else None


def steps(rows: Sequence[Row]) -> Sheet:
    """The numbers of Figure 3; rates are averaged over tasks."""
    lines = []
    for row in rows:
        for suite in suites_of([row]):
            scores = row.scores[suite]
            lines.append(Line(row.group, row.label, [str(suite), *_per_step(scores)]))
    columns = ["test set", "steps", "reward/step", "deliberation"]
    title = "Steps per task, reward per step and deliberation rate (Figure 3)"
    return Sheet("steps", title, "agent", columns, lines, ["Averages over tasks.", tasks_note(rows)], decimals=3)


def _per_step(scores: Sequence[Score]) -> list[Cell]:
    return [
        fmean(score.steps for score in scores),
        fmean(score.reward_per_step for score in scores),
        fmean(score.deliberation_rate for score in scores),
    ]


def _success(scores: Sequence[Score] | None) -> Cell:
    return wilson(sum(score.success for score in scores), len(scores)).times(100) if scores else None
