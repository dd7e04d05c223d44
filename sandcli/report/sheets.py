"""Tables of numbers: written as they are for `--json` and CSV, and turned into text (a `Grid`) for people."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sandcli.report.estimates import Difference, Estimate
from sandcli.report.parts import Grid

NONE = "-"
"""Text of a cell without a number."""

Cell = Estimate | Difference | float | int | str | None


class SheetRow(NamedTuple):
    """One row: the base model, a label, and numbers. `paper` marks numbers printed in the paper."""

    group: str
    label: str
    cells: list[Cell]
    paper: bool = False


class Sheet(NamedTuple):
    """A table of numbers. `first` is the heading above the labels; `decimals` applies to fractions in text."""

    name: str
    title: str
    first: str
    columns: list[str]
    rows: list[SheetRow]
    notes: Sequence[str] = ()
    decimals: int = 1


def grid(sheet: Sheet) -> Grid:
    """The table as text."""
    rows = [[_group(row), row.label, *(text(cell, sheet.decimals) for cell in row.cells)] for row in sheet.rows]
    return Grid(sheet.name, sheet.title, ["base model", sheet.first, *sheet.columns], rows, sheet.notes)


def text(cell: Cell, decimals: int) -> str:
    """A cell as text: `85.7 (80.1-90.2)`, `+3.2 (-0.4 to +7.1)`, `2,254`, or `-` if it is empty."""
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
    """The table for `--json`: numbers stay numbers, an interval becomes an object."""
    return {
        "title": sheet.title,
        "rows": [
            {
                "base model": row.group,
                sheet.first: row.label,
                "paper": row.paper,
                "cells": {name: _plain(cell) for name, cell in zip(sheet.columns, row.cells, strict=True)},
            }
            for row in sheet.rows
        ],
        "notes": list(sheet.notes),
    }


def flat(sheet: Sheet) -> list[list[Any]]:
    """The table for a spreadsheet, headings first. The bounds of an interval have their own columns."""
    parts = [_parts([row.cells[at] for row in sheet.rows]) for at in range(len(sheet.columns))]
    heads = [f"{name} {part}".strip() for name, names in zip(sheet.columns, parts, strict=True) for part in names]
    rows: list[list[Any]] = [["base model", sheet.first, "from", *heads]]
    for row in sheet.rows:
        numbers = [_number(cell, part) for cell, names in zip(row.cells, parts, strict=True) for part in names]
        rows.append([row.group, row.label, "paper" if row.paper else "here", *numbers])
    return rows


def _group(row: SheetRow) -> str:
    return f"{row.group} (paper)" if row.paper else row.group


def _plain(cell: Cell) -> Any:
    return cell._asdict() if isinstance(cell, Estimate | Difference) else cell


def _parts(cells: list[Cell]) -> list[str]:
    """The columns that a column needs in a spreadsheet."""
    bounded = any(isinstance(cell, Estimate | Difference) for cell in cells)
    return ["", "low", "high"] if bounded else [""]


def _number(cell: Cell, part: str) -> float | int | str | None:
    match cell:
        case Estimate(mean, low, high) | Difference(mean, low, high):
            return {"": mean, "low": low, "high": high}[part]
    return None if part else cell
