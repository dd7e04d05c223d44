"""Tables as text: for the terminal, Markdown, LaTeX (booktabs) and CSV."""

import csv
import io
import re
import textwrap
from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.text import Text

from sandcli.report.parts import Grid
from sandcli.report.sheets import NONE, Sheet, flat
from sandcli.terminal import visible

_GAP = 2
_NUMBER = re.compile(r"[-+]?\d[\d,.]*( \([-+\d,. to]*\)|-[\d,.]*)?")
_NUMBERED = re.compile(r"^Table \d: ")
_MARKDOWN = re.compile(r"([\\`*_|<>\[\]~&%#$])")
_LATEX: Mapping[str, str] = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "[": "{[}",  # at the start of a row, LaTeX would read [ and * as arguments of the line break
    "*": "{*}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def numeric(grid: Grid) -> list[bool]:
    """Which columns contain only numbers and are aligned right."""
    columns = zip(*grid.rows, strict=True) if grid.rows else ((name,) for name in grid.header)
    return [all(cell == NONE or _NUMBER.fullmatch(cell) for cell in column) for column in columns]


def terminal(grid: Grid, width: int) -> Text:
    """The table in `width` columns. If it is too wide for one line per row, intervals go below their numbers."""
    grid = _visible(grid)
    cells = [[[cell] for cell in row[2:]] for row in grid.rows]
    widths = _widths(grid, cells)
    if _total(widths) + _longest(grid) > width:
        cells = [[_stacked(cell) for cell in row[2:]] for row in grid.rows]
        widths = _widths(grid, cells)
    first = max(12, min(_longest(grid), width - _total(widths)))
    right = numeric(grid)[2:]
    printed = Text(grid.title + "\n", style="bold", no_wrap=True, overflow="ignore", end="")
    headings = [
        textwrap.wrap(name, size, break_long_words=False) for name, size in zip(grid.header[2:], widths, strict=True)
    ]
    _add_row(printed, [textwrap.wrap(grid.header[1], first), *headings], [first, *widths], right, "bold", bottom=True)
    group = ""
    for row, numbers in zip(grid.rows, cells, strict=True):
        if row[0] != group:
            group = row[0]
            printed.append(f"{group}\n", style="not bold italic cyan")
        _add_row(printed, [textwrap.wrap(row[1], first), *numbers], [first, *widths], right, "not bold")
    for note in grid.notes:
        printed.append(textwrap.fill(note, width) + "\n", style="not bold dim")
    return printed


def _visible(grid: Grid) -> Grid:
    """The table with control characters spelled out: names of runs, models and tasks come from outside."""
    rows = [[visible(cell) for cell in row] for row in grid.rows]
    header, notes = [visible(name) for name in grid.header], [visible(note) for note in grid.notes]
    return Grid(grid.name, visible(grid.title), header, rows, notes)


def _stacked(cell: str) -> list[str]:
    """The number, then its interval."""
    number, _, interval = cell.partition(" (")
    return [number, interval.removesuffix(")")] if interval else [cell]


def _widths(grid: Grid, cells: Sequence[Sequence[Sequence[str]]]) -> list[int]:
    """The width of each column: that of the widest line in a cell or of the longest word in the heading."""
    return [
        max(
            *(len(word) for word in heading.split()),
            *(cell_len(line) for row in cells for line in row[at]),
            0,
        )
        for at, heading in enumerate(grid.header[2:])
    ]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * len(widths)


def _longest(grid: Grid) -> int:
    return max(cell_len(name) for name in (grid.header[1], *(row[1] for row in grid.rows)))


def _add_row(
    printed: Text,
    cells: Sequence[Sequence[str]],
    widths: Sequence[int],
    right: Sequence[bool],
    style: str,
    bottom: bool = False,
) -> None:
    """Add a row with as many lines as its tallest cell. `bottom` aligns cells of fewer lines at the bottom."""
    height = max(map(len, cells))
    for line in range(height):
        parts = []
        for cell, width, flush in zip(cells, widths, [False, *right], strict=True):
            at = line - (height - len(cell)) if bottom else line
            text = cell[at] if 0 <= at < len(cell) else ""
            blank = " " * (width - cell_len(text))
            parts.append(blank + text if flush else text + blank)
        printed.append((" " * _GAP).join(parts).rstrip() + "\n", style=f"{style} dim" if line and not bottom else style)


def markdown(grid: Grid) -> str:
    """The table in GitHub's Markdown, with its title above and its notes below."""
    rule = ["---:" if flush else "---" for flush in numeric(grid)]
    rows = [[_escape_markdown(cell) for cell in row] for row in (grid.header, *grid.rows)]
    lines = ["| " + " | ".join(row) + " |" for row in (rows[0], rule, *rows[1:])]
    notes = [f"\n{_escape_markdown(note)}" for note in grid.notes]
    return "\n".join([f"**{_escape_markdown(grid.title)}**\n", *lines, *notes]) + "\n"


def latex(grid: Grid) -> str:
    """The table for LaTeX with a heading row for each base model. It needs `\\usepackage{booktabs}`."""
    shape = "".join("r" if flush else "l" for flush in numeric(grid)[1:])
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escape_latex(_NUMBERED.sub('', grid.title))}}}",
        rf"\label{{tab:{grid.name}}}",
        rf"\begin{{tabular}}{{{shape}}}",
        r"\toprule",
        _latex_row(grid.header[1:]),
    ]
    group = None
    for row in grid.rows:
        if row[0] != group:
            group = row[0]
            lines += [r"\midrule", rf"\multicolumn{{{len(shape)}}}{{l}}{{\textit{{{_escape_latex(group)}}}}} \\"]
        lines.append(_latex_row(row[1:]))
    notes = [rf"\par{{\footnotesize {_escape_latex(note)}}}" for note in grid.notes]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *notes, r"\end{table}"]) + "\n"


def comma_separated(sheet: Sheet) -> str:
    """The numbers as CSV. The bounds of intervals have their own columns; a missing number is an empty field."""
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(flat(sheet))
    return written.getvalue()


def _escape_markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", text)


def _escape_latex(text: str) -> str:
    if _NUMBER.fullmatch(text):
        signed = re.sub(r"(?<!\d)([-+])(?=\d)", r"$\1$", text)
        return re.sub(r"(?<=\d)-(?=\d)", "--", signed)
    return "".join(_LATEX.get(character, character) for character in text)


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(_escape_latex, cells)) + r" \\"
