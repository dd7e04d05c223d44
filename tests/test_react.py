"""The text of turns: what is read, what is written, and what counts as the same action."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandcli.agent.conversation import conversation
from sandcli.agent.form import is_deliberation, opening
from sandcli.agent.turns import Turn, has_action_line, normalise, parse, render
from sandcli.messages import Message
from sandcli.records import Step

THOUGHTS = st.text().map(str.strip).filter(lambda text: not has_action_line(text))
ACTIONS = st.text().filter(lambda text: "\n" not in text).map(str.strip).filter(normalise)


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
def test_parse(text: str, turn: Turn | None) -> None:
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
def test_normalise(said: str, meant: str) -> None:
    assert normalise(said) == meant


@given(st.text(alphabet=st.sampled_from("aB .'\"`\n\t")))
def test_a_normalised_action_stays_as_it_is(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@pytest.mark.parametrize(
    ("thought", "weighs"),
    [
        ("My options: (1) look; (2) go. I go.", True),
        ("  My options: (1) look; (2) go; (3) wait.", True),
        ("My options: (2) look; (1) go.", True),
        ("My options: (1) look.", False),
        ("My options: (1) look; (3) go.", False),
        ("My options: (1) look; (2)", False),
        ("I see. My options: (1) look; (2) go.", False),
        ("my options: (1) look; (2) go.", False),
        ("", False),
    ],
)
def test_what_counts_as_a_deliberation(thought: str, weighs: bool) -> None:
    assert is_deliberation(thought) is weighs


def test_the_opening_of_a_deliberation() -> None:
    assert opening(["look", "go to hall"]) == "My options: (1) look; (2) go to hall."


@given(st.lists(ACTIONS.filter(str.strip), min_size=2, max_size=5))
def test_every_opening_of_two_or_more_options_is_recognised(actions: list[str]) -> None:
    assert is_deliberation(opening(actions))


def test_one_option_is_no_deliberation() -> None:
    assert not is_deliberation(opening(["look"]))


def test_conversation_gives_turns_and_observations_in_order() -> None:
    steps = [
        Step(thought="I look.", action="look", observation="A hall.", score=0.0),
        Step(thought="", action="go", observation="You go.", score=0.5),
        Step(thought="Hm?", action="", observation="Invalid.", score=0.5),
    ]
    assert conversation("rules", "the task", steps) == [
        Message("system", "rules"),
        Message("user", "the task"),
        Message("assistant", "Thought: I look.\nAction: look"),
        Message("user", "Observation: A hall."),
        Message("assistant", "Action: go"),
        Message("user", "Observation: You go."),
        Message("assistant", "Hm?"),
        Message("user", "Observation: Invalid."),
    ]


@pytest.mark.parametrize(
    ("text", "holds"),
    [("Action: go", True), ("I go.\n  Action: go", True), ("An Action: go", False), ("action: go", False)],
)
def test_has_action_line(text: str, holds: bool) -> None:
    assert has_action_line(text) is holds
