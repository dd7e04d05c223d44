"""What a report is made of, whatever it is written as: tables whose cells are text, and drawn figures."""

from collections.abc import Sequence
from typing import NamedTuple


class Grid(NamedTuple):
    """A table. `name` is that of its files, such as `table2`; numbers stand right; `notes` go below."""

    name: str
    title: str
    header: list[str]
    rows: list[list[str]]
    notes: Sequence[str] = ()


class Figure(NamedTuple):
    """A drawn figure: the content of its SVG and PNG files; `caption` says what is to be seen."""

    name: str
    title: str
    caption: str
    svg: str
    png: bytes
