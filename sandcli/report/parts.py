"""The parts of a report in any format: tables with text in their cells, and figures."""

from collections.abc import Sequence
from typing import NamedTuple


class Grid(NamedTuple):
    """A table of text. `name` is the name of its files, such as `table2`; `notes` are printed below."""

    name: str
    title: str
    header: list[str]
    rows: list[list[str]]
    notes: Sequence[str] = ()


class Figure(NamedTuple):
    """A figure: its caption, and the contents of its SVG and PNG files."""

    name: str
    title: str
    caption: str
    svg: str
    png: bytes
