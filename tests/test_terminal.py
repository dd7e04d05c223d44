"""Text from outside cannot control the terminal."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from sandcli.terminal import entry, literal, visible, whole_line


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("plain, ümlaut, 模型, 👩‍🔬", "plain, ümlaut, 模型, 👩‍🔬"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("over\rwritten\x9b2J", r"over\rwritten\x9b2J"),
        ("\u202etxt.exe\u2066", r"\u202etxt.exe\u2066"),
        ("half \ud83d", r"half \ud83d"),
        (r"\x1b", r"\x1b"),
    ],
)
def test_control_characters_are_spelled_out(text: str, printed: str) -> None:
    assert visible(text) == printed


@given(st.text(st.characters(codec=None), max_size=30))
def test_nothing_that_is_printed_controls_the_terminal(text: str) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=80, force_terminal=True, color_system=None, markup=False, emoji=False)
    for part in (literal(text), whole_line(text), entry(text, text)):
        console.print(part, crop=False)
    printed = stream.getvalue()
    assert printed.isprintable() or not set(map(ord, printed)) & {*range(8), *range(11, 32), *range(127, 160)}
    printed.encode()


def test_a_whole_line_is_wider_than_the_terminal() -> None:
    stream = io.StringIO()
    Console(file=stream, width=20).print(whole_line("x" * 50), entry("y" * 50, "z " * 20), crop=False)
    assert {"x" * 50, "y" * 50} <= set(stream.getvalue().splitlines())
