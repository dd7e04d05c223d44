"""`sand report --html`: what of a run the page shows: its evaluated episodes, and how its training steps came about."""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from sandcli.core.run import D_DELIB, Run
from sandcli.core.store import Keyed, Records
from sandcli.files import write_atomic
from sandcli.records import Critique, Key, Rollout, Sample, Thought, Trajectory
from sandcli.report.build import Report
from sandcli.report.page import Deliberated, Page, Shown, page_of
from sandcli.report.rows import short_names

R = TypeVar("R", bound=Keyed)


def write_html(out: Path, report: Report) -> None:
    """The page of a report, with everything that its runs hold."""
    names = short_names([str(root) for root in report.roots])
    told = [*report.warnings, *report.lacking]
    page = Page(f"Report on {', '.join(names.values())}", report.grids, report.figures, told)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, page_of(page, [_shown(names[str(root)], report, root) for root in report.roots]))


def _shown(name: str, report: Report, root: Path) -> Shown:
    sources = ((source, row.label) for row in report.rows for source in row.sources.values())
    labels = {model: label for (run, model), label in sources if run == str(root)}
    return Shown(name, labels, Run(root).episodes(), _training(Run(root)))


def _training(run: Run) -> Iterator[Deliberated]:
    """Every trajectory of D_exp with what was sampled, rolled out and written about it, as far as that is there."""
    trained = _opened(run.artifact("synthesize").derived[D_DELIB], Trajectory)
    samples, thoughts = _opened(run.artifact("sample").path, Sample), _opened(run.artifact("synthesize").path, Thought)
    rollouts, critiques = (
        _opened(run.artifact("rollout").path, Rollout),
        _opened(run.artifact("critique").path, Critique),
    )
    for expert in _opened(run.artifact("collect").path, Trajectory) or ():
        steps: list[Key] = [(expert.id, t) for t in range(len(expert.steps))]
        drawn = [replace(sample, samples=[]) for sample in _there(samples, steps)]  # the page shows no single draw
        candidates: list[Key] = [(*sample.key, number) for sample in drawn for number in range(len(sample.candidates))]
        yield Deliberated(
            expert=expert,
            trained=next(iter(_there(trained, [expert.key])), expert),
            samples=drawn,
            rollouts=_there(rollouts, candidates),
            critiques=_there(critiques, candidates),
            thoughts=_there(thoughts, steps),
        )


def _opened(path: Path, kind: type[R]) -> Records[R] | None:
    return Records(path, kind) if path.exists() else None


def _there(records: Records[R] | None, keys: list[Key]) -> list[R]:
    return records.having(keys) if records is not None else []
