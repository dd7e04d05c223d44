"""The paper's tables from our rows, the paper's beside them. (Tables 2: reward, 3: ablations, 4: tokens.)"""

from collections.abc import Sequence

from sandcli.report import paper
from sandcli.report.estimates import RESAMPLES, Estimate, bootstrap
from sandcli.report.scores import Row, Score, Suite, held_out, suites_of, worlds_of
from sandcli.report.sheets import Cell, Line, Sheet

INTERVALS = (
    f"Intervals: 95 % percentile bootstrap over tasks, {RESAMPLES:,} resamples; of equal values they tell nothing. "
    "They are of one training a row: another seed may move it by more."
)


def table2(rows: Sequence[Row]) -> Sheet:
    """Average reward x100 on every test set, and the average of the paper's four where all are there."""
    suites = columns_of(rows)
    ours = [Line(row.group, row.label, [*_rewards(row, suites), _average(row)]) for row in rows]
    known = paper.TABLE2 if set(paper.SUITES) <= set(suites) else ()
    theirs = [
        Line(line.base, line.label, [*_printed(line.rewards, suites), line.average], paper=True) for line in known
    ]
    notes = [INTERVALS, tasks_note(rows)]
    if theirs:
        notes += [paper.TABLE2_NOTE, *_partial(rows)]
    columns = [*map(str, suites), "average"]
    return Sheet("table2", "Table 2: average reward x100", "agent", columns, [*ours, *theirs], notes)


def columns_of(rows: Sequence[Row]) -> list[Suite]:
    """All that is evaluated, and the paper's four where one of its worlds is."""
    found = suites_of(rows)
    theirs = [suite for suite in paper.SUITES if {suite.world for suite in found} & {"ScienceWorld", "ALFWorld"}]
    return [*theirs, *(suite for suite in found if suite not in theirs)]


def tasks_note(rows: Sequence[Row], suites: Sequence[Suite] | None = None) -> str:
    """How many tasks of the test sets the numbers are over, and of which rows where these have other tasks."""
    found = [(suite, _by_tasks(rows, suite)) for suite in (suites_of(rows) if suites is None else suites)]
    counts = []
    for suite, labels in found:
        told = [f"{len(tasks)} ({' and '.join(names)})" for tasks, names in labels.items()]
        counts.append(f"{suite} {len(next(iter(labels))) if len(labels) == 1 else ', '.join(told)}")
    uneven = any(len(labels) > 1 for _, labels in found)
    more = " Averages over other tasks cannot be compared; paired differences can." if uneven else ""
    return f"Tasks: {'; '.join(counts)}.{more}"


def _by_tasks(rows: Sequence[Row], suite: Suite) -> dict[frozenset[str], list[str]]:
    """The labels of the rows by the tasks that they have, most tasks first."""
    several = len({row.group for row in rows}) > 1
    found: dict[frozenset[str], list[str]] = {}
    for row in (row for row in rows if any(held.world == suite.world for held in row.scores)):
        label = f"{row.group}, {row.label}" if several else row.label
        found.setdefault(frozenset(score.task for score in row.scores.get(suite, [])), []).append(label)
    return dict(sorted(found.items(), key=lambda item: -len(item[0])))


def table3(rows: Sequence[Row]) -> Sheet | None:
    """The ablations beside SFT and the iterations that they belong to; none where no ablation was evaluated."""
    iterations = {(row.group, row.iteration) for row in rows if row.kind == "ablation"}
    groups = {group for group, _ in iterations}
    shown = [
        row
        for row in rows
        if (row.kind == "sft" and row.group in groups)
        or (row.kind in ("sand", "ablation") and (row.group, row.iteration) in iterations)
    ]
    if not iterations:
        return None
    suites = suites_of(shown)
    lines = [Line(row.group, row.label, [*_rewards(row, suites), _average(row)]) for row in shown]
    notes = [INTERVALS, tasks_note(shown), "The paper's own numbers of this table are not known here."]
    title = "Table 3: ablations, average reward x100"
    return Sheet("table3", title, "agent", [*map(str, suites), "average"], lines, notes)


def table4(rows: Sequence[Row]) -> Sheet | None:
    """Average number of tokens generated in a task, by world; none where no held-out task was evaluated."""
    worlds = worlds_of(rows)
    ours = [Line(row.group, row.label, [_tokens(row.held_out(world)) for world in worlds]) for row in rows]
    known = [paper.TABLE4.get(world) for world in worlds]
    sft: list[Cell] = [tokens and tokens.sft for tokens in known]
    least: list[Cell] = [tokens and tokens.least for tokens in known]
    most: list[Cell] = [tokens and tokens.most for tokens in known]
    theirs = [
        Line("both base models", "SFT", sft, paper=True),
        Line("both base models", "SAND, least of iterations 1 to 3", least, paper=True),
        Line("both base models", "SAND, most of iterations 1 to 3", most, paper=True),
    ]
    lines = [*(line for line in ours if any(line.cells)), *(theirs if any(known) else [])]
    notes = [INTERVALS, "Over the seen and unseen tasks together.", tasks_note(rows, held_out(rows))]
    title = "Table 4: average generated tokens per task"
    return Sheet("table4", title, "agent", worlds, lines, notes, decimals=0) if worlds else None


def reward(scores: Sequence[Score] | None) -> Estimate | None:
    """Average reward x100; none of no tasks."""
    return bootstrap([score.reward for score in scores]).times(100) if scores else None


def _rewards(row: Row, suites: Sequence[Suite]) -> list[Cell]:
    return [reward(row.scores.get(suite)) for suite in suites]


def _average(row: Row) -> Estimate | None:
    groups = [[score.reward for score in row.scores.get(suite, [])] for suite in paper.SUITES]
    return bootstrap(*groups).times(100) if all(groups) else None


def _printed(rewards: Sequence[float], suites: Sequence[Suite]) -> list[Cell]:
    known = dict(zip(paper.SUITES, rewards, strict=True))
    return [known.get(suite) for suite in suites]


def _partial(rows: Sequence[Row]) -> list[str]:
    """Where our test sets are not the paper's."""
    other = []
    for suite, count in paper.TASKS.items():
        found = sorted({len(row.scores[suite]) for row in rows if suite in row.scores})
        if found not in ([], [count]):
            other.append(f"{suite}: {' or '.join(map(str, found))} of {count}")
    if not other:
        return []
    return [f"Not on all of the paper's tasks, so not to be held against its numbers ({', '.join(other)})."]


def _tokens(scores: Sequence[Score]) -> Estimate | None:
    return bootstrap([score.tokens for score in scores]) if scores else None
