"""Tables that the paper does not have: success, paired differences, task types, difficulty, Figure 3's numbers."""

from collections.abc import Sequence
from math import fsum
from statistics import fmean, median

from sandcli.report.bands import BANDS, banded_scores, parts_of
from sandcli.report.compare import difference, reference
from sandcli.report.estimates import wilson
from sandcli.report.scores import AgentRow, Score, Suite, by_group, held_out, split_agent, suites_of, worlds_of
from sandcli.report.sheets import Cell, Sheet, SheetRow
from sandcli.report.tables import INTERVALS, reward, tasks_note
from sandcli.report.trend import trend_notes


def success(rows: Sequence[AgentRow]) -> Sheet:
    """The share of successful episodes, in per cent, by both definitions that papers use."""
    found = [
        SheetRow(row.group, row.label, [str(suite), *_successes(row.scores[suite])])
        for row in rows
        for suite in suites_of([row])
    ]
    notes = [
        "reward 1: the agent earned the full reward. episode done: the world ended the episode, as ScienceWorld also "
        "does after a wrong focus. Papers use either; on ALFWorld they are the same.",
        "Intervals: Wilson's 95 % score intervals.",
        tasks_note(rows),
    ]
    return Sheet("success", "Success rate, %", "agent", ["test set", "reward 1", "episode done"], found, notes)


def _successes(scores: Sequence[Score]) -> list[Cell]:
    counts = (fsum(score.success for score in scores), fsum(score.done for score in scores))
    return [wilson(count, len(scores)).times(100) for count in counts]


def differences(rows: Sequence[AgentRow]) -> Sheet | None:
    """Every row against SFT or another reference. None if no two rows have a task in common."""
    found: list[SheetRow] = []
    for members in by_group(rows).values():
        for row, suite in [(member, suite) for member in members for suite in suites_of([member])]:
            against = reference(row, suite, members)
            delta = difference(row.scores[suite], against.scores[suite]) if against else None
            if against and delta:
                found.append(SheetRow(row.group, row.label, [against.label, str(suite), delta.tasks, delta]))
    notes = ["Over the tasks that both were evaluated on.", INTERVALS]
    title = "Paired differences in average reward x100"
    columns = ["against", "test set", "tasks", "difference"]
    return Sheet("differences", title, "agent", columns, found, notes) if found else None


def types(rows: Sequence[AgentRow]) -> Sheet | None:
    """Average reward x100 by task type; each row of the other tables is a column."""
    labels = list(dict.fromkeys(row.label for row in rows))
    found: list[SheetRow] = []
    for group, members in by_group(rows).items():
        for world in worlds_of(members):
            by_label = {row.label: row.held_out(world) for row in members}
            kinds = sorted({score.kind for scores in by_label.values() for score in scores})
            for kind in kinds:
                own = {label: [s for s in scores if s.kind == kind] for label, scores in by_label.items()}
                found.append(SheetRow(group, kind, [reward(own.get(label)) for label in labels]))
    notes = [INTERVALS, "Averages over all test tasks together.", tasks_note(rows, held_out(rows))]
    return Sheet("types", "Average reward x100 by task type", "task type", labels, found, notes) if found else None


def difficulty(rows: Sequence[AgentRow]) -> Sheet | None:
    """Reward and deliberation rate in the three difficulty bands. None if no base model was evaluated."""
    found, notes = [], [INTERVALS, "Bands: tertiles of the base model's reward on the same tasks."]
    parts = banded_scores(rows)
    for row, suite, limits, scores, _ in parts:
        for band in BANDS:
            rate = 100 * median([score.deliberation_rate for score in scores[band]]) if scores[band] else None
            cells: list[Cell] = [str(suite), band, len(scores[band]), reward(scores[band]), rate]
            found.append(SheetRow(row.group, row.label, cells))
        notes.append(f"{row.group}, {suite}: hard up to {limits.hard:.2f}, easy above {limits.medium:.2f}.")
        if row.kind == "base":
            notes += [f"{row.group}, {suite}: no task is {band}." for band in BANDS if not scores[band]]
    notes += trend_notes(parts)
    title = "Average reward x100 and median deliberation rate by difficulty"
    columns = ["test set", "band", "tasks", "reward", "rate, %"]
    return Sheet("difficulty", title, "agent", columns, found, list(dict.fromkeys(notes))) if found else None


def deliberation(rows: Sequence[AgentRow]) -> Sheet | None:
    """The effect of deliberation: the same weights with never and always, against free. None without such rows."""
    found: list[SheetRow] = []
    parts = parts_of(rows)
    for row in rows:
        for suite in suites_of([row]):
            free = _free_scores(row, suite, rows)
            if free is not None:
                found += [
                    SheetRow(row.group, row.label, [str(suite), band, len(scores), *_against(scores, free)])
                    for band, scores in parts[row.group, row.label, suite].items()
                ]
    notes = ["Difference in average reward x100 from the same weights when the agent chooses.", INTERVALS]
    columns = ["test set", "band", "tasks", "difference", "rate, %"]
    return Sheet("deliberation", "The effect of deliberation", "agent", columns, found, notes) if found else None


def _free_scores(row: AgentRow, suite: Suite, rows: Sequence[AgentRow]) -> list[Score] | None:
    """What the same weights earned when the agent chose; None if that is the row itself, or was not evaluated."""
    run, agent = row.sources[suite.world]
    model, mode = split_agent(agent)
    free = next((other for other in rows if other.sources.get(suite.world) == (run, model)), None)
    return free.scores.get(suite) if mode != "free" and free is not None else None


def _against(scores: Sequence[Score], free: Sequence[Score]) -> list[Cell]:
    rate = 100 * fmean(score.deliberation_rate for score in scores) if scores else None
    return [difference(scores, free), rate]


def steps(rows: Sequence[AgentRow]) -> Sheet:
    """The numbers of Figure 3, averaged over tasks."""
    found: list[SheetRow] = []
    for row in rows:
        for suite in suites_of([row]):
            scores = row.scores[suite]
            found.append(SheetRow(row.group, row.label, [str(suite), *_per_step(scores)]))
    columns = ["test set", "steps", "reward/step", "deliberation"]
    title = "Steps per task, reward per step and deliberation rate (Figure 3)"
    return Sheet("steps", title, "agent", columns, found, ["Averages over tasks.", tasks_note(rows)], decimals=3)


def _per_step(scores: Sequence[Score]) -> list[Cell]:
    return [
        fmean(score.steps for score in scores),
        fmean(score.reward_per_step for score in scores),
        fmean(score.deliberation_rate for score in scores),
    ]
