"""`sand report --html`: what of a run the page shows: its evaluated episodes, and how its training steps came about."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from sandcli.core.run import Run
from sandcli.core.store import Keyed, Records, read
from sandcli.files import write_atomic
from sandcli.records import Critique, Episode, Rollout, Sample, Thought, Trajectory
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
    return Shown(name, labels, read(Run(root).needs("eval"), Episode), _training(Run(root)))


def _training(run: Run) -> Iterator[Deliberated]:
    """Every trajectory of D_exp with what was sampled, rolled out and written about it, as far as that is there."""
    with ExitStack() as stack:

        def opened(path: Path, kind: type[R]) -> Records[R] | None:
            return stack.enter_context(closing(Records(path, kind))) if path.exists() else None

        trained = opened(run.deliberations, Trajectory)
        samples, thoughts = opened(run.artifact("sample"), Sample), opened(run.artifact("synthesize"), Thought)
        rollouts, critiques = opened(run.artifact("rollout"), Rollout), opened(run.artifact("critique"), Critique)
        for expert in read(run.artifact("collect"), Trajectory) if run.artifact("collect").exists() else ():
            steps = [(expert.id, t) for t in range(len(expert.steps))]
            drawn = [replace(sample, samples=[]) for sample in _there(samples, steps)]  # the page shows no single draw
            candidates = [(*sample.key, number) for sample in drawn for number in range(len(sample.candidates))]
            yield Deliberated(
                expert=expert,
                trained=next(iter(_there(trained, [expert.key])), expert),
                samples=drawn,
                rollouts=_there(rollouts, candidates),
                critiques=_there(critiques, candidates),
                thoughts=_there(thoughts, steps),
            )


def _there(records: Records[R] | None, keys: Sequence[tuple[str | int, ...]]) -> list[R]:
    """Those of the records that there are."""
    return [records.get(key) for key in keys if key in records] if records is not None else []
