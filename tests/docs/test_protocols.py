"""The page on protocols: its tables hold what the program does, and its example files are preambles."""

import json
import re
from pathlib import Path

import pytest

from sandcli.agent.conversation import conversation
from sandcli.agent.preamble import read_preamble
from sandcli.agent.turns import Turn, parse
from sandcli.config import Scalar, resolve
from sandcli.protocols import PROTOCOLS, protocol_values
from sandcli.settings import AgentSettings
from tests.helpers import REPO

PAGE = (REPO / "docs" / "protocols.md").read_text()
_FORMS = [AgentSettings(inline=inline, preface=preface) for preface in (False, True) for inline in (False, True)]


def table(first: str, number: int = 0) -> list[list[str]]:
    """The rows below a header that begins with `first`; the cells as text."""
    part = re.split(rf"^\| {first} \|.*\n.*\n", PAGE, flags=re.MULTILINE)[1 + number]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in part.split("\n\n")[0].splitlines()]


def cell(value: Scalar) -> str:
    return f"`{json.dumps(value) if isinstance(value, bool) else value}`"


@pytest.mark.parametrize(("number", "world"), [(0, "scienceworld"), (1, "alfworld")])
def test_tables_say_what_each_protocol_sets(number: int, world: str) -> None:
    defaults = {setting.name: setting.value for setting in resolve(Path("none"), {}, {}).listing()}
    rows = {row[0].strip("`"): [text.removesuffix(" *") for text in row[1:5]] for row in table("setting", number)}
    for name, shown in rows.items():
        assert shown == [cell(defaults[name]), *(cell(protocol_values(p, world)[name]) for p in PROTOCOLS)], name
    named = set(rows) | {row[0].strip("`") for row in table("setting")}
    assert named == set().union(*(protocol_values(p, world) for p in PROTOCOLS))


@pytest.mark.parametrize("row", table("the turn"), ids=lambda row: row[0])
def test_table_says_how_turns_are_read(row: list[str]) -> None:
    text = "\n".join(re.findall("`([^`]+)`", row[0]))
    for form, shown in zip(_FORMS, row[1:], strict=True):
        turn = parse(text, form)
        assert (turn is not None and turn.action == "go") == bool(shown)
        if "thought" in shown:
            assert turn == Turn(shown.removeprefix("go, thought ").strip('"'), "go")


def test_example_files_are_preambles_in_the_forms_of_the_literature(tmp_path: Path) -> None:
    examples = re.findall(r"```json\n(.*?)```", PAGE, flags=re.DOTALL)
    roles = []
    for example in examples:
        (tmp_path / "preamble.json").write_text(example)
        begin = conversation(read_preamble(tmp_path / "preamble.json"), "Your task is to fly.", [])
        roles.append([message.role for message in begin])
        assert begin[-1].content.endswith("Your task is to fly.")
    assert roles == [["user", "assistant"] * 3 + ["user"], ["user"]]
