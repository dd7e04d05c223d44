"""Tables as text: no name breaks a table, and tables fit into a terminal of 80 columns."""

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from sandcli.report.details import differences
from sandcli.report.estimates import Difference, Estimate
from sandcli.report.formats import comma_separated, latex, markdown, numeric, terminal
from sandcli.report.rows import agent_rows
from sandcli.report.sheets import Cell, Sheet, SheetRow, grid, plain, text
from sandcli.report.tables import table2
from tests.report.made_up import evaluation, everywhere

NAMES = st.text("ab |_%&\\{}$#~^*<>[]`-,\"'", min_size=1, max_size=12)


def sheet_of(*labels: str) -> Sheet:
    cells: list[Cell] = [Estimate(85.71, 80.13, 90.2), None, 10]
    lines = [SheetRow("base_1", label, cells) for label in labels]
    return Sheet("table9", "Rewards & more, 50 %", "agent", ["x_1 | y", "none", "count"], lines, ["a_b: 5 %"])


@pytest.mark.parametrize(
    ("cell", "decimals", "shown"),
    [
        (Estimate(85.71, 80.13, 90.2), 1, "85.7 (80.1-90.2)"),
        (Estimate(1234.5, 1000, 2000), 0, "1,234 (1,000-2,000)"),
        (Difference(-3.21, -7.1, 0.4, 9), 1, "-3.2 (-7.1 to +0.4)"),
        (None, 1, "-"),
        (0.0, 2, "0.00"),
        (1200, 1, "1,200"),
        ("hard", 1, "hard"),
    ],
)
def test_cells(cell: Cell, decimals: int, shown: str) -> None:
    assert text(cell, decimals) == shown


def test_markdown_escapes() -> None:
    written = markdown(grid(sheet_of("a|b_c*d")))
    assert r"| base\_1 | a\|b\_c\*d | 85.7 (80.1-90.2) | - | 10 |" in written
    assert r"x\_1 \| y" in written and r"a\_b: 5 \%" in written
    assert "| --- | --- | ---: | ---: | ---: |" in written


@given(NAMES)
def test_every_row_of_a_markdown_table_has_the_same_number_of_cells(name: str) -> None:
    rows = [line for line in markdown(grid(sheet_of(name))).splitlines() if line.startswith("| ")]
    assert len(rows) == 3
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows} == {6}


def test_latex_escapes_and_rules() -> None:
    written = latex(grid(sheet_of(r"50 % of a_b & c\d", "7 (x_1)")))
    assert r"7 (x\_1) &" in written  # starts like a number but is a name
    assert r"50 \% of a\_b \& c\textbackslash{}d & 85.7 (80.1--90.2) & - & 10 \\" in written
    for part in (r"\toprule", r"\midrule", r"\bottomrule", r"\label{tab:table9}", r"\textit{base\_1}", "{lrrr}"):
        assert part in written
    assert r"\caption{Rewards \& more, 50 \%}" in written


def test_latex_has_minus_signs() -> None:
    runs = [evaluation(sft=everywhere(1.0, 0.5), model=everywhere(0.5, 0.5))]
    sheet = differences(agent_rows(runs))
    assert sheet is not None
    assert r"$-$25.0 ($-$50.0 to $+$0.0)" in latex(grid(sheet))


@given(NAMES)
def test_latex_has_balanced_braces_and_no_unescaped_characters(name: str) -> None:
    written = latex(grid(sheet_of(name)))
    bare = re.sub(r"\\[\\&%$#_{}]", "", written)
    assert bare.count("{") == bare.count("}")
    assert not set("%$#_^~") & set(bare)
    row = next(line for line in written.splitlines() if line.endswith(r"& 10 \\"))
    assert len(re.findall(r"(?<!\\)&", row)) == 3


@given(NAMES)
def test_csv_preserves_names_and_bounds_have_columns(name: str) -> None:
    head, row = csv.reader(io.StringIO(comma_separated(sheet_of(name))))
    assert head == [
        "base model",
        "agent",
        "from",
        "x_1 | y",
        "x_1 | y low",
        "x_1 | y high",
        "none",
        "count",
    ]
    assert row == ["base_1", name, "here", "85.71", "80.13", "90.2", "", "10"]


def test_json_has_numbers_not_text() -> None:
    (row,) = plain(sheet_of("a"))["rows"]
    assert row["cells"] == {"x_1 | y": {"mean": 85.71, "low": 80.13, "high": 90.2}, "none": None, "count": 10}
    assert row["paper"] is False


def test_table_2_of_both_worlds_fits_80_columns() -> None:
    models = {"sft": everywhere(0.0, 1.0, 1.0), "model": everywhere(0.9, 1.0)}
    runs = [evaluation("a", **models), evaluation("b", world="ALFWorld", **models)]
    shown = terminal(grid(table2(agent_rows(runs))), 80).plain.splitlines()
    assert max(map(len, shown)) <= 80
    at = next(number for number, line in enumerate(shown) if line.startswith("SAND, iteration 1"))
    assert shown[at].split()[3:] == ["95.0"] * 5
    assert shown[at + 1].split()[0] == "90.0-100.0"
    assert "Llama-3.1-8B (paper)" in shown


def test_a_wide_terminal_has_one_line_per_row() -> None:
    shown = terminal(grid(sheet_of("first", "second")), 120).plain.splitlines()
    assert [line.split()[0] for line in shown] == ["Rewards", "agent", "base_1", "first", "second", "a_b:"]


def test_names_cannot_control_the_terminal() -> None:
    sheet = sheet_of("[red]run[/] \x1b[2J")
    assert r"[red]run[/] \x1b[2J" in terminal(grid(sheet._replace(title="\x07")), 120).plain
    assert "\x1b" in markdown(grid(sheet))  # files keep names as they are


def test_columns_of_numbers_are_recognised() -> None:
    assert numeric(grid(sheet_of("7"))) == [False, True, True, True, True]
    assert numeric(grid(sheet_of("seven"))) == [False, False, True, True, True]


def test_wide_characters_keep_columns_aligned() -> None:
    shown = terminal(grid(sheet_of("first", "模型の一")), 120).plain.splitlines()
    one, other = (line for line in shown if "85.7" in line)
    assert cell_len(one) == cell_len(other)
