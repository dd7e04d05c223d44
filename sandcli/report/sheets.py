"""Tables of numbers, before they become text: for `--json` and CSV as they are, for people as a `Grid`."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sandcli.report.estimates import Difference, Estimate
from sandcli.report.parts import Grid

NONE = "-"


Cell = Estimate | Difference | float | int | str | None


class Line(NamedTuple):
    """One row: the base model, what it is about, and its numbers. `paper`: they are the paper's, not ours."""

    group: str
    label: str
    cells: list[Cell]
    paper: bool = False


class Sheet(NamedTuple):
    """A table of numbers. `first` is the heading of the lines' labels; fractions are shown with `decimals`."""

    name: str
    title: str
    first: str
    columns: list[str]
    lines: list[Line]
    notes: Sequence[str] = ()
    decimals: int = 1


def grid(sheet: Sheet) -> Grid:
    """The table as text."""
    rows = [[_group(line), line.label, *(text(cell, sheet.decimals) for cell in line.cells)] for line in sheet.lines]
    return Grid(sheet.name, sheet.title, ["base model", sheet.first, *sheet.columns], rows, sheet.notes)


def text(cell: Cell, decimals: int) -> str:
    """A cell for people: `85.7 (80.1-90.2)`, `+3.2 (-0.4 to +7.1)`, `2,254`, or `-` where there is nothing."""
    match cell:
        case None:
            return NONE
        case Estimate(mean, low, high):
            return f"{mean:,.{decimals}f} ({low:,.{decimals}f}-{high:,.{decimals}f})"
        case Difference(mean, low, high):
            return f"{mean:+.{decimals}f} ({low:+.{decimals}f} to {high:+.{decimals}f})"
        case float():
            return f"{cell:,.{decimals}f}"
        case int():
            return f"{cell:,}"
    return cell


def plain(sheet: Sheet) -> dict[str, Any]:
    """The table for `--json`; numbers stay numbers, an interval is an object."""
    return {
        "title": sheet.title,
        "rows": [
            {
                "base model": line.group,
                sheet.first: line.label,
                "paper": line.paper,
                "cells": {name: _plain(cell) for name, cell in zip(sheet.columns, line.cells, strict=True)},
            }
            for line in sheet.lines
        ],
        "notes": list(sheet.notes),
    }


def flat(sheet: Sheet) -> list[list[Any]]:
    """The table for a spreadsheet: the bounds of an interval have columns of their own; the first row is headings."""
    parts = [_parts([line.cells[at] for line in sheet.lines]) for at in range(len(sheet.columns))]
    heads = [f"{name} {part}".strip() for name, found in zip(sheet.columns, parts, strict=True) for part in found]
    rows: list[list[Any]] = [["base model", sheet.first, "from", *heads]]
    for line in sheet.lines:
        numbers = [_number(cell, part) for cell, found in zip(line.cells, parts, strict=True) for part in found]
        rows.append([line.group, line.label, "paper" if line.paper else "here", *numbers])
    return rows


def _group(line: Line) -> str:
    return f"{line.group} (paper)" if line.paper else line.group


def _plain(cell: Cell) -> Any:
    return cell._asdict() if isinstance(cell, Estimate | Difference) else cell


def _parts(cells: list[Cell]) -> list[str]:
    bounded = any(isinstance(cell, Estimate | Difference) for cell in cells)
    return ["", "low", "high"] if bounded else [""]


def _number(cell: Cell, part: str) -> float | int | str | None:
    match cell:
        case Estimate(mean, low, high) | Difference(mean, low, high):
            return {"": mean, "low": low, "high": high}[part]
    return None if part else cell
