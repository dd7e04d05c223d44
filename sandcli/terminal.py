"""Text for the terminal: text from models, worlds and files is printed literally and cannot control the terminal."""

import re

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters except newline and tab, marks that reorder text, and halves of surrogate pairs."""


def visible(text: str) -> str:
    r"""The text with every control character spelled out, such as `\x1b`."""
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


def literal(text: str, style: str = "") -> Text:
    """The text as it is: no markup, no control characters."""
    return Text(visible(text), style)


def whole_line(text: str, style: str = "") -> Group:
    """A line that is never wrapped, so that names can be copied. Print it with `crop=False`."""
    return Group(Text(visible(text), style, no_wrap=True, overflow="ignore"))  # print() drops these in a bare Text


def entry(name: str, detail: str) -> RenderableType:
    """An entry of a list: the name on a line of its own, the detail indented below."""
    return Group(whole_line(name, "bold"), Padding(literal(detail), (0, 0, 0, 4), expand=False))
