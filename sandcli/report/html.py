"""`sand report --html`: collects what the page shows of each run: episodes, and how its training data was made."""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from sandcli.core.run import D_DELIB, Run
from sandcli.core.store import Keyed, Records
from sandcli.files import write_atomic
from sandcli.records import Critique, Key, Rollout, Sample, Thought, Trajectory
from sandcli.report.build import Report
from sandcli.report.page import Page, RunData, TrainingTrajectory, page_of
from sandcli.report.rows import short_names

R = TypeVar("R", bound=Keyed)


def write_html(out: Path, report: Report) -> None:
    """Write the page of a report, with all records of its runs."""
    names = short_names([str(root) for root in report.roots])
    notes = [*report.warnings, *report.missing]
    page = Page(f"Report on {', '.join(names.values())}", report.grids, report.figures, notes)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, page_of(page, [_run_data(names[str(root)], report, root) for root in report.roots]))


def _run_data(name: str, report: Report, root: Path) -> RunData:
    sources = ((source, row.label) for row in report.rows for source in row.sources.values())
    labels = {model: label for (run, model), label in sources if run == str(root)}
    return RunData(name, labels, Run(root).episodes(), _training(Run(root)))


def _training(run: Run) -> Iterator[TrainingTrajectory]:
    """Every trajectory of D_exp with its samples, rollouts, critiques and thoughts, as far as they exist."""
    deliberations = _opened(run.artifact("synthesize").derived[D_DELIB], Trajectory)
    samples, thoughts = _opened(run.artifact("sample").path, Sample), _opened(run.artifact("synthesize").path, Thought)
    rollouts, critiques = (
        _opened(run.artifact("rollout").path, Rollout),
        _opened(run.artifact("critique").path, Critique),
    )
    experts = _opened(run.artifact("collect").path, Trajectory)
    for expert in () if experts is None else experts:  # `experts or ()` would read the file for its length
        steps: list[Key] = [(expert.id, t) for t in range(len(expert.steps))]
        own = [replace(sample, samples=[]) for sample in _having(samples, steps)]  # the page does not show their texts
        candidates: list[Key] = [(*sample.key, number) for sample in own for number in range(len(sample.candidates))]
        yield TrainingTrajectory(
            expert=expert,
            trained=next(iter(_having(deliberations, [expert.key])), expert),
            samples=own,
            rollouts=_having(rollouts, candidates),
            critiques=_having(critiques, candidates),
            thoughts=_having(thoughts, steps),
        )


def _opened(path: Path, kind: type[R]) -> Records[R] | None:
    return Records(path, kind) if path.exists() else None


def _having(records: Records[R] | None, keys: list[Key]) -> list[R]:
    return records.having(keys) if records is not None else []
