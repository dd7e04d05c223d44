"""Preambles as files: what is read, and what is wrong with other files."""

import json
from pathlib import Path
from typing import Any

import pytest

from sandcli.agent.preamble import MostCommon, most_common, read_preamble, with_knowledge, written
from sandcli.errors import UsageError
from sandcli.messages import Message

EXAMPLE = [
    Message("user", "You act in a house.\n"),
    Message("assistant", "OK"),
    Message("user", "An example task."),
    Message("assistant", "Thought: I look.\nAction: look"),
    Message("user", "Observation: A hall."),
    Message("assistant", "Action: go out"),
]


def said(role: str, content: Any = "x") -> dict[str, Any]:
    return {"role": role, "content": content}


@pytest.mark.parametrize("preamble", [[], [Message("system", "rules")], EXAMPLE, EXAMPLE[:3], EXAMPLE[:1]])
def test_written_preamble_is_read(tmp_path: Path, preamble: list[Message]) -> None:
    (tmp_path / "p.json").write_bytes(written(preamble))
    assert read_preamble(tmp_path / "p.json") == preamble


def test_white_space_around_what_the_assistant_says_is_removed(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps([said("user", " a\n"), said("assistant", " OK\n")]), "utf-8-sig")
    assert read_preamble(tmp_path / "p.json") == [Message("user", " a\n"), Message("assistant", "OK")]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ([said("user"), said("user")], "message 2 of 2 is the user's, not the assistant's"),
        ([said("assistant"), said("user")], "message 1 of 2 is the assistant's, not the user's"),
        ([said("system"), said("assistant")], "message 2 of 2 is the assistant's, not the user's"),
        ([said("user"), said("assistant"), said("system")], "message 3 of 3 is the system's, not the user's"),
        ([said("system"), said("system")], "message 2 of 2 is the system's, not the user's"),
        ([said("tool")], r"is no preamble: Invalid enum value 'tool' - at `\$\[0\].role`"),
        ([said("user", None)], r"is no preamble: Expected `str`, got `null` - at `\$\[0\].content`"),
        ([{"from": "human", "value": "x"}], "is no preamble: Object contains unknown field `from`"),
        ([{"role": "user"}], "is no preamble: Object missing required field `content`"),
        ({"messages": []}, "is no preamble: Expected `array`, got `object`"),
        ("rules", "is no preamble: Expected `array`, got `str`"),
    ],
)
def test_other_content_is_refused_in_one_line(tmp_path: Path, content: Any, what: str) -> None:
    (tmp_path / "p.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=what) as raised:
        read_preamble(tmp_path / "p.json")
    assert "p.json" in raised.value.what and "\n" not in raised.value.what


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b'[{"role": "user",\n "content": }]', r"p.json:2: not JSON: Expecting value"),
        (b"", "p.json:1: not JSON"),
        (b"[\xff]", "p.json: not JSON: 'utf-8' codec"),
        (b"[" * 100_000, "p.json: not JSON"),
        (b'[{"role": "user", "content": "\\ud800"}]', "p.json: not JSON"),
    ],
)
def test_file_that_is_not_json_is_refused_in_one_line(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "p.json").write_bytes(content)
    with pytest.raises(UsageError, match=what) as raised:
        read_preamble(tmp_path / "p.json")
    assert "\n" not in raised.value.what


@pytest.mark.parametrize("name", ["absent.json", "."])
def test_preamble_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"the preamble .* cannot be read: (No such file|Is a directory)"):
        read_preamble(tmp_path / name)


def test_most_common_preamble_wins_and_is_counted() -> None:
    one, other = tuple(EXAMPLE), tuple(EXAMPLE[:2])
    assert most_common([]) == MostCommon((), 0, 0)
    assert most_common([other, one, other]) == MostCommon(other, 2, 3)
    assert str(most_common([one, one])) == "6 messages, the same in all 2 trajectories"
    assert str(most_common([one, other, one])).endswith("the most common one: 2 of 3 trajectories have it")


def test_knowledge_ends_the_first_message() -> None:
    assert with_knowledge(EXAMPLE, "") == EXAMPLE
    assert with_knowledge([], "Rules.") == [Message("system", "Rules.")]
    first, *rest = with_knowledge(EXAMPLE[:3], "Rules.")
    assert first == Message("user", "You act in a house.\n\n\nRules.") and rest == EXAMPLE[1:3]
