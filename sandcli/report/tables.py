"""The paper's Tables 2 (reward), 3 (ablations) and 4 (tokens) with our numbers, and the paper's for comparison."""

from collections.abc import Sequence

from sandcli.report import paper
from sandcli.report.estimates import RESAMPLES, Estimate, bootstrap
from sandcli.report.scores import AgentRow, Score, Suite, held_out, suites_of, worlds_of
from sandcli.report.sheets import Cell, Sheet, SheetRow

INTERVALS = (
    f"Intervals: 95 % percentile bootstrap over tasks, {RESAMPLES:,} resamples; they have no width if all values are "
    "equal. They do not include the variation between training seeds, which may be larger."
)


def table2(rows: Sequence[AgentRow]) -> Sheet:
    """Average reward x100 on every test set, and the average over the paper's four if all of them were evaluated."""
    suites = columns_of(rows)
    ours = [_reward_row(row, suites) for row in rows]
    theirs = _papers_rows(paper.TABLE2 if set(paper.SUITES) <= set(suites) else (), suites)
    notes = [INTERVALS, tasks_note(rows)]
    if theirs:
        notes += [*paper.TABLE2_NOTES, *_partial(rows)]
    columns = [*map(str, suites), "average"]
    return Sheet("table2", "Table 2: average reward x100", "agent", columns, [*ours, *theirs], notes)


def columns_of(rows: Sequence[AgentRow]) -> list[Suite]:
    """Every evaluated test set, and the paper's four if one of its worlds was evaluated."""
    found = suites_of(rows)
    ours = {suite.world for suite in found}
    theirs = list(paper.SUITES) if ours & paper.WORLDS else []
    return [*theirs, *(suite for suite in found if suite not in theirs)]


def tasks_note(rows: Sequence[AgentRow], suites: Sequence[Suite] | None = None) -> str:
    """How many tasks of each test set the numbers are over, by row if the rows have different tasks."""
    found = [(suite, _by_tasks(rows, suite)) for suite in (suites_of(rows) if suites is None else suites)]
    counts = []
    for suite, labels in found:
        by_row = [f"{len(tasks)} ({' and '.join(names)})" for tasks, names in labels.items()]
        counts.append(f"{suite} {len(next(iter(labels))) if len(labels) == 1 else ', '.join(by_row)}")
    uneven = any(len(labels) > 1 for _, labels in found)
    more = " Averages over different tasks are not comparable; paired differences are." if uneven else ""
    return f"Tasks: {'; '.join(counts)}.{more}"


def _by_tasks(rows: Sequence[AgentRow], suite: Suite) -> dict[frozenset[str], list[str]]:
    """The labels of the rows, by their sets of tasks; the largest set comes first."""
    several = len({row.group for row in rows}) > 1
    found: dict[frozenset[str], list[str]] = {}
    for row in (row for row in rows if any(own.world == suite.world for own in row.scores)):
        label = f"{row.group}, {row.label}" if several else row.label
        found.setdefault(frozenset(score.task for score in row.scores.get(suite, [])), []).append(label)
    return dict(sorted(found.items(), key=lambda item: -len(item[0])))


def table3(rows: Sequence[AgentRow]) -> Sheet | None:
    """The ablations, with SFT and the full method's rows of the same iterations. None without an ablation."""
    iterations = {(row.group, row.iteration) for row in rows if row.kind == "ablation"}
    groups = {group for group, _ in iterations}
    compared = [
        row
        for row in rows
        if (row.kind == "sft" and row.group in groups)
        or (row.kind in ("sand", "ablation") and (row.group, row.iteration) in iterations)
    ]
    if not iterations:
        return None
    suites = suites_of(compared)
    theirs = _papers_rows(paper.TABLE3 if set(suites) & set(paper.SUITES) else (), suites)
    found = [*(_reward_row(row, suites) for row in compared), *theirs]
    notes = [INTERVALS, tasks_note(compared), *(_partial(compared) if theirs else ())]
    title = "Table 3: ablations, average reward x100"
    return Sheet("table3", title, "agent", [*map(str, suites), "average"], found, notes)


def table4(rows: Sequence[AgentRow]) -> Sheet | None:
    """Average number of generated tokens per task, by world. None if no held-out task was evaluated."""
    worlds = worlds_of(rows)
    ours = [SheetRow(row.group, row.label, [_tokens(row.held_out(world)) for world in worlds]) for row in rows]
    known = paper.TABLE4 if paper.WORLDS & set(worlds) else ()
    theirs = [SheetRow(row.base, row.label, [row.tokens.get(world) for world in worlds], paper=True) for row in known]
    found = [*(row for row in ours if any(row.cells)), *theirs]
    notes = [INTERVALS, "Averages over all test tasks together.", tasks_note(rows, held_out(rows))]
    title = "Table 4: average generated tokens per task"
    return Sheet("table4", title, "agent", worlds, found, notes, decimals=0) if worlds else None


def reward(scores: Sequence[Score] | None) -> Estimate | None:
    """Average reward x100, or None without scores."""
    return bootstrap([score.reward for score in scores]).times(100) if scores else None


def _reward_row(row: AgentRow, suites: Sequence[Suite]) -> SheetRow:
    rewards = [reward(row.scores.get(suite)) for suite in suites]
    return SheetRow(row.group, row.label, [*rewards, _average(row)])


def _average(row: AgentRow) -> Estimate | None:
    groups = [[score.reward for score in row.scores.get(suite, [])] for suite in paper.SUITES]
    return bootstrap(*groups).times(100) if all(groups) else None


def _papers_rows(known: Sequence[paper.Rewards], suites: Sequence[Suite]) -> list[SheetRow]:
    return [SheetRow(row.base, row.label, [*_printed(row.rewards, suites), row.average], paper=True) for row in known]


def _printed(rewards: Sequence[float], suites: Sequence[Suite]) -> list[Cell]:
    known = dict(zip(paper.SUITES, rewards, strict=True))
    return [known.get(suite) for suite in suites]


def _partial(rows: Sequence[AgentRow]) -> list[str]:
    """A note on the test sets whose size differs from the paper's."""
    different = []
    for suite, count in paper.TASKS.items():
        found = sorted({len(row.scores[suite]) for row in rows if suite in row.scores})
        if found not in ([], [count]):
            different.append(f"{suite}: {' or '.join(map(str, found))} of {count} tasks")
    if not different:
        return []
    return [f"Not comparable with the paper's numbers, because the test sets differ ({', '.join(different)})."]


def _tokens(scores: Sequence[Score]) -> Estimate | None:
    return bootstrap([score.tokens for score in scores]) if scores else None
