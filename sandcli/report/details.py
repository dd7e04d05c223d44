"""Tables that the paper does not have: success, paired differences, task types, difficulty, Figure 3's numbers."""

from collections.abc import Sequence
from statistics import fmean, median

from sandcli.report.bands import BANDS, banded_scores
from sandcli.report.compare import difference, reference
from sandcli.report.estimates import wilson
from sandcli.report.scores import AgentRow, Score, by_group, held_out, split_agent, suites_of, worlds_of
from sandcli.report.sheets import Cell, Sheet, SheetRow
from sandcli.report.tables import INTERVALS, reward, tasks_note


def success(rows: Sequence[AgentRow]) -> Sheet:
    """The share of successful episodes, in per cent."""
    suites = suites_of(rows)
    found = [SheetRow(row.group, row.label, [_success(row.scores.get(suite)) for suite in suites]) for row in rows]
    notes = ["Intervals: Wilson's 95 % score intervals.", tasks_note(rows)]
    return Sheet("success", "Success rate, %", "agent", [*map(str, suites)], found, notes)


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
    notes = [INTERVALS, "Averages over the seen and unseen tasks together.", tasks_note(rows, held_out(rows))]
    return Sheet("types", "Average reward x100 by task type", "task type", labels, found, notes) if found else None


def difficulty(rows: Sequence[AgentRow]) -> Sheet | None:
    """Reward and deliberation rate in the three difficulty bands. None if no base model was evaluated."""
    found, notes = [], [INTERVALS, "Bands: tertiles of the base model's reward on the same tasks, seen and unseen."]
    for row, world, limits, scores in banded_scores(rows):
        for band in BANDS:
            rate = 100 * median([score.deliberation_rate for score in scores[band]]) if scores[band] else None
            cells: list[Cell] = [world, band, len(scores[band]), reward(scores[band]), rate]
            found.append(SheetRow(row.group, row.label, cells))
        notes.append(f"{row.group}, {world}: hard up to {limits.hard:.2f}, easy above {limits.medium:.2f}.")
        if row.kind == "base":
            notes += [f"{row.group}, {world}: no task is {band}." for band in BANDS if not scores[band]]
    title = "Average reward x100 and median deliberation rate by difficulty"
    columns = ["world", "band", "tasks", "reward", "rate, %"]
    return Sheet("difficulty", title, "agent", columns, found, list(dict.fromkeys(notes))) if found else None


def deliberation(rows: Sequence[AgentRow]) -> Sheet | None:
    """The effect of deliberation: the same weights with never and always, against free. None without such rows."""
    found: list[SheetRow] = []
    banded = banded_scores(rows)
    for row in rows:
        for world, (run, agent) in row.sources.items():
            model, mode = split_agent(agent)
            free = next((other for other in rows if other.sources.get(world) == (run, model)), None)
            if mode != "free" and free is not None:
                bands = {"all": row.held_out(world)}
                bands |= {band: s for own in banded if own[:2] == (row, world) for band, s in own.scores.items()}
                found += [
                    SheetRow(row.group, row.label, [world, band, len(scores), *_against(scores, free.held_out(world))])
                    for band, scores in bands.items()
                ]
    notes = ["Difference in average reward x100 from the same weights when the agent chooses.", INTERVALS]
    columns = ["world", "band", "tasks", "difference", "rate, %"]
    return Sheet("deliberation", "The effect of deliberation", "agent", columns, found, notes) if found else None


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


def _success(scores: Sequence[Score] | None) -> Cell:
    return wilson(sum(score.success for score in scores), len(scores)).times(100) if scores else None
