"""Turns as text: how they are read and written, and which actions count as equal."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandcli.agent.turns import Turn, has_action_line, normalise, parse, render, split_action
from sandcli.settings import AgentSettings
from tests.agent.texts import ACTIONS, FORMS, THOUGHTS

INLINE_OR_NOT = Turn("a Action: go", "stay"), Turn("a", "go")


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


@pytest.mark.parametrize(
    ("text", "strict", "inline", "preface", "both"),
    [
        ("Thought: a\nAction: go", *[Turn("a", "go")] * 4),
        ("Action: go", *[Turn("", "go")] * 4),
        ("Thought: a Action: go", None, Turn("a", "go"), None, Turn("a", "go")),
        ("Thought: a\nAction:\n\n go \n", None, Turn("a", "go"), None, Turn("a", "go")),
        ("Thought: a Action: go\nAction: stay", Turn("a Action: go", "stay"), Turn("a", "go"), *INLINE_OR_NOT),
        ("Sure.\nThought: a\nAction: go", None, None, *[Turn("a", "go")] * 2),
        ("I see.\nAction: go", None, None, *[Turn("I see.", "go")] * 2),
        ("Sure. Thought: a Action: go", None, None, None, Turn("a", "go")),
        ("Thought: a", *[None] * 4),
        ("Thought: a Action: .", *[None] * 4),
        ("go", *[None] * 4),
    ],
)
def test_parse_reads_the_forms_that_are_set(
    text: str, strict: Turn | None, inline: Turn | None, preface: Turn | None, both: Turn | None
) -> None:
    assert parse(text) == strict
    assert parse(text, AgentSettings(inline=True)) == inline
    assert parse(text, AgentSettings(preface=True)) == preface
    assert parse(text, AgentSettings(inline=True, preface=True)) == both


@pytest.mark.parametrize("form", FORMS)
def test_parse_refuses_a_turn_without_a_thought_if_one_is_required(form: AgentSettings) -> None:
    required = msgspec.structs.replace(form, thought="required")
    for text in ("Action: go", "Thought:\nAction: go"):
        assert parse(text, form) == Turn("", "go") and parse(text, required) is None
    assert parse("Thought: a\nAction: go", required) == Turn("a", "go")


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


@pytest.mark.parametrize(
    ("text", "inline", "split"),
    [
        ("Thought: I look.\nAction: Look\nAction: go", False, ("Thought: I look.\nAction:", "Look")),
        ("Action:look", False, ("Action:", "look")),
        ("Thought: my Action: is here\nAction: go", False, ("Thought: my Action: is here\nAction:", "go")),
        ("Thought: now Action: go on", True, ("Thought: now Action:", "go on")),
        ("Thought: now Action: go on", False, None),
        ("Action:", False, None),
    ],
)
def test_turn_is_split_where_its_action_begins(text: str, inline: bool, split: tuple[str, str] | None) -> None:
    assert split_action(text, AgentSettings(inline=inline)) == split
