"""`sand report`: builds the paper's tables and figures from evaluated runs, and writes them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.text import Text

from sandcli.errors import SandError
from sandcli.files import write_atomic
from sandcli.plans import runs_of
from sandcli.report.compare import warnings
from sandcli.report.counterfactuals import counterfactual
from sandcli.report.decisions import decisions
from sandcli.report.details import deliberation, differences, difficulty, steps, success, types
from sandcli.report.diagnostics import Diagnostics, diagnostic_sheets, diagnostics_of
from sandcli.report.draws import passes
from sandcli.report.evaluations import read_run
from sandcli.report.formats import comma_separated, latex, markdown, terminal
from sandcli.report.missing import missing_parts
from sandcli.report.panels import PanelGroup, by_panel, different_panels
from sandcli.report.parts import Figure, Grid
from sandcli.report.scores import AgentRow, Evaluation
from sandcli.report.seeds import over_seeds
from sandcli.report.sheets import Sheet, grid, plain
from sandcli.report.tables import table2, table3, table4
from sandcli.terminal import visible

_SHEETS = (
    over_seeds,
    table2,
    differences,
    success,
    passes,
    table3,
    table4,
    steps,
    difficulty,
    deliberation,
    counterfactual,
    decisions,
    types,
)


@dataclass(frozen=True)
class Report:
    """The report on some runs.

    `groups` are the evaluations on each panel, and `sheets` their tables, group by group. `warnings` say which numbers
    are not comparable or cannot be read. `missing` says which parts are missing, and the command that adds each.
    `diagnostics` are of each run.
    """

    roots: list[Path]
    groups: list[PanelGroup]
    sheets: list[Sheet]
    warnings: list[str]
    missing: list[str]
    diagnostics: Sequence[Diagnostics] = ()

    @property
    def rows(self) -> list[AgentRow]:
        """All rows."""
        return [row for group in self.groups for row in group.rows]

    @cached_property
    def grids(self) -> list[Grid]:
        """The tables as text."""
        return [grid(sheet) for sheet in self.sheets]

    @cached_property
    def figures(self) -> list[Figure]:
        """Figures 3 and 4 and the funnel, if there is data for them. Drawing takes a second or two."""
        from sandcli.report.figures import figure3, figure4
        from sandcli.report.funnel_figure import funnel_figure

        made = ((group, make(group.rows)) for group in self.groups for make in (figure3, figure4))
        drawn = [group.of_figure(figure) for group, figure in made if figure is not None]
        funnel = funnel_figure({found.name: found.funnel for found in self.diagnostics if found.funnel})
        return [*drawn, *([funnel] if funnel else [])]

    def plain(self) -> dict[str, Any]:
        """All numbers for `--json`."""
        tables = {sheet.name: plain(sheet) for sheet in self.sheets}
        return {**tables, "warnings": self.warnings, "missing": self.missing}


def build_report(given: Sequence[Path]) -> Report:
    """The report on run directories, and on all evaluated runs of an experiment's folder, or of one of its arms.

    A damaged run of an experiment is left out, with a warning, if it is not itself among those that are given.

    Raises `PrerequisiteError` if one is none of these, or has no evaluation.
    """
    evaluations, left_out = _read_runs(given)
    roots = [Path(evaluation.run) for evaluation in evaluations]
    return report_of(roots, evaluations, diagnostics_of(evaluations), left_out)


def _read_runs(given: Sequence[Path]) -> tuple[list[Evaluation], list[str]]:
    """The evaluations of all runs, and a warning for each that is left out."""
    named = {folder.resolve() for folder in given}
    read: list[Evaluation] = []
    damaged: dict[Path, SandError] = {}
    for place, root in {root.resolve(): root for folder in given for root in runs_of(folder)}.items():
        try:
            read.append(read_run(root))
        except SandError as error:
            if place in named:
                raise
            damaged[root] = error
    if not read:
        raise next(iter(damaged.values()))
    return read, [f"{root} is left out: {error.what}; to fix it: {error.fix}" for root, error in damaged.items()]


def report_of(
    roots: list[Path],
    evaluations: Sequence[Evaluation],
    diagnostics: Sequence[Diagnostics] = (),
    left_out: Sequence[str] = (),
) -> Report:
    """The report on the evaluations and diagnostics of these run directories; `left_out` are warnings about others."""
    groups = by_panel(evaluations)
    sheets = [sheet for group in groups for sheet in _sheets(group)]
    found = [line for group in groups for line in warnings(group.evaluations, group.rows)]
    unread = [line for own in diagnostics for line in own.warnings]
    told = [*left_out, *different_panels(groups), *found, *unread]
    return Report(roots, groups, [*sheets, *diagnostic_sheets(diagnostics)], told, _missing(groups), diagnostics)


def _sheets(group: PanelGroup) -> Iterator[Sheet]:
    for make in _SHEETS:
        sheet = make(group.rows)
        if sheet is not None:
            yield group.of_sheet(sheet)


def _missing(groups: Sequence[PanelGroup]) -> list[str]:
    """The missing parts; if there are several panels, each line begins with the one that it is about."""
    return [
        f"{group.label}: {line}" if len(groups) > 1 else line
        for group in groups
        for line in missing_parts(group.evaluations, group.rows)
    ]


def tables_for_terminal(report: Report) -> Iterator[Text]:
    """The tables as printed on the terminal. The long table by task type is only in the other formats."""
    width = Console().width
    return (terminal(table, width) for table in report.grids if table.name.partition("-")[0] != "types")


def tables_as(report: Report, form: Literal["markdown", "csv", "latex"]) -> str:
    """All tables as one text."""
    if form == "csv":
        return "\n".join(f"# {sheet.title}\n{comma_separated(sheet)}" for sheet in report.sheets)
    return "\n".join(map(markdown if form == "markdown" else latex, report.grids))


def write_files(report: Report, folder: Path) -> list[Path]:
    """Write every table (Markdown, CSV, LaTeX), every figure (SVG, PNG) and the warnings. Returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    contents: dict[str, bytes] = {}
    for sheet, table in zip(report.sheets, report.grids, strict=True):
        contents[f"{sheet.name}.md"] = markdown(table).encode()
        contents[f"{sheet.name}.csv"] = comma_separated(sheet).encode()
        contents[f"{sheet.name}.tex"] = latex(table).encode()
    for figure in report.figures:
        contents[f"{figure.name}.svg"] = figure.svg.encode()
        contents[f"{figure.name}.png"] = figure.png
    contents["warnings.txt"] = "".join(f"{visible(line)}\n" for line in (*report.warnings, *report.missing)).encode()
    for name, content in contents.items():
        write_atomic(folder / name, [content])
    return [folder / name for name in contents]
