"""What deliberating changed at single steps: the records of `sand counterfactual` and their table."""

from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean

from sandcli.core.run import Run
from sandcli.episodes import Counterfactual, Episode
from sandcli.records import Key
from sandcli.report.bands import parts_of
from sandcli.report.estimates import Difference, bootstrap
from sandcli.report.scores import AgentRow, Change
from sandcli.report.sheets import Cell, Sheet, SheetRow
from sandcli.report.tables import INTERVALS


def changes_of(run: Run) -> tuple[dict[str, list[Change]], int]:
    """The changes by model, and how many records belong to episodes that were played again since."""
    found: dict[str, list[Change]] = {}
    if not run.artifact("counterfactual").path.exists():
        return found, 0
    records = run.counterfactuals()
    for episode in run.episodes():
        found.setdefault(episode.model, []).extend(_changes(episode, records.having(_keys(episode))))
    return found, len(records) - sum(map(len, found.values()))


def _keys(episode: Episode) -> list[Key]:
    if episode.deliberation != "free":
        return []
    return [(*episode.key, t) for t, step in enumerate(episode.steps) if step.deliberated]


def _changes(episode: Episode, records: Iterable[Counterfactual]) -> Iterator[Change]:
    for record in records:
        if (record.action, record.reward) == (episode.steps[record.step].action, episode.reward):
            yield Change(episode.split, str(episode.task), record.same, record.reward - record.reward_without)


def counterfactual(rows: Sequence[AgentRow]) -> Sheet | None:
    """What the agent would have done without deliberating, and what came of it. None without such records."""
    found: list[SheetRow] = []
    for (group, label, suite), parts in parts_of(rows).items():
        changes = next(row for row in rows if (row.group, row.label) == (group, label)).changes.get(suite, [])
        for band, scores in parts.items() if changes else ():
            tasks = {score.task for score in scores}
            own = [change for change in changes if change.task in tasks]
            found.append(SheetRow(group, label, [str(suite), band, *_cells(own)]))
    notes = [
        "At every step that the agent chose to deliberate, the same weights took the step from the same history "
        "without deliberating. other %: how often that was another action. They then went on as they chose.",
        "Difference: reward x100 with the deliberation minus without, over the steps with another action, averaged by "
        "task first.",
        INTERVALS,
    ]
    columns = ["test set", "band", "steps", "other %", "difference"]
    title = "Deliberated steps, taken without deliberating"
    return Sheet("counterfactual", title, "agent", columns, found, notes) if found else None


def _cells(changes: Sequence[Change]) -> list[Cell]:
    other = sum(not change.same for change in changes)
    return [len(changes), 100 * other / len(changes) if changes else None, _difference(changes)]


def _difference(changes: Iterable[Change]) -> Difference | None:
    by_task: dict[str, list[float]] = {}
    for change in changes:
        if not change.same:
            by_task.setdefault(change.task, []).append(change.gain)
    means = [fmean(gains) for gains in by_task.values()]
    return Difference(*bootstrap(means).times(100), len(means)) if means else None
