"""Turns as text: how they are read and written, and which actions count as equal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandcli.agent.turns import Turn, has_action_line, normalise, parse, render
from tests.agent.texts import ACTIONS, THOUGHTS


@pytest.mark.parametrize(
    ("text", "turn"),
    [
        ("Thought: I look.\nAction: look around", Turn("I look.", "look around")),
        ("Action: look around", Turn("", "look around")),
        ("\n  Thought:I look.\n\n  Action:  look around  \n", Turn("I look.", "look around")),
        ("Thought: one\ntwo\nAction: go", Turn("one\ntwo", "go")),
        ("Thought:\nAction: go", Turn("", "go")),
        ("Thought: a\nAction: go\nObservation: You go.\nAction: stay", Turn("a", "go")),
        ("Thought: an Action: in passing\nAction: go", Turn("an Action: in passing", "go")),
        ("Thought: I look.", None),
        ("Thought: I look.\nAction:", None),
        ("Action: '.'", None),
        ("Well.\nAction: go", None),
        ("look around", None),
        ("", None),
    ],
)
def test_parse_reads_thought_and_action(text: str, turn: Turn | None) -> None:
    assert parse(text) == turn


@given(THOUGHTS, ACTIONS)
def test_parse_is_the_inverse_of_render(thought: str, action: str) -> None:
    assert parse(render(thought, action)) == Turn(thought, action)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("Look  Around", "look around"),
        ("look around.", "look around"),
        ('"look around"', "look around"),
        ("`look around.`", "look around"),
        ('"look around".', "look around"),
        ("'look around'..", "look around"),
        ('" look around "', "look around"),
        ("go to bob's room", "go to bob's room"),
        ("...", ""),
    ],
)
def test_normalise_removes_what_worlds_ignore(said: str, meant: str) -> None:
    assert normalise(said) == meant


@given(st.text(alphabet=st.sampled_from("aB .'\"`\n\t")))
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@pytest.mark.parametrize(
    ("text", "holds"),
    [("Action: go", True), ("I go.\n  Action: go", True), ("An Action: go", False), ("action: go", False)],
)
def test_has_action_line(text: str, holds: bool) -> None:
    assert has_action_line(text) is holds
