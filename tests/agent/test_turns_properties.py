"""For any text: what is parsed from a turn occurs in it, and parsing takes linear time."""

import time

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from sandcli.agent.turns import Turn, has_action_line, normalise, parse, render
from sandcli.settings import AgentSettings
from tests.agent.texts import FORMS

PIECES = st.lists(st.sampled_from([*" \t\n\r.!?\"'`a:", "Thought:", "Action:"]), min_size=1, max_size=4).map("".join)
TEXTS = st.lists(
    st.sampled_from(["Thought:", "Action:", "\n", " ", "\t", "look", "\u2028", "\r"]) | st.text(max_size=3)
)
NOISE = 0.2
"""Possible error of a short measurement, in seconds of CPU time."""


@given(TEXTS.map("".join), st.sampled_from(FORMS))
def test_turn_holds_only_what_the_text_holds(text: str, form: AgentSettings) -> None:
    turn = parse(text, form)
    if turn is None:
        return
    assert turn.thought in text and turn.action in text
    assert normalise(turn.action) and "\n" not in turn.action
    assert not has_action_line(turn.thought)
    assert parse(render(*turn), form) == turn


@given(TEXTS.map("".join), TEXTS.map("".join), st.sampled_from(FORMS))
def test_what_follows_the_action_line_changes_nothing(text: str, more: str, form: AgentSettings) -> None:
    turn = parse(text, form)
    if turn is not None:
        assert parse(f"{text}\n{more}", form) == turn


@given(TEXTS.map("".join), st.sampled_from(FORMS))
def test_preface_makes_no_other_turn_of_what_can_be_read_without(text: str, form: AgentSettings) -> None:
    turn = parse(text, replace(form, preface=False))
    if turn is not None:
        assert parse(text, replace(form, preface=True)) == turn


@given(st.lists(st.text(), max_size=3))
def test_text_without_an_action_line_is_no_turn(lines: list[str]) -> None:
    text = "\n".join(lines)
    assert has_action_line(text) or parse(text) is None


@settings(max_examples=40, phases=[Phase.generate])
@given(st.sampled_from(["Thought:", "Action:", ""]), PIECES, st.sampled_from(["", "x", "\nAction: x"]))
def test_reading_four_times_the_text_takes_about_four_times_as_long(begin: str, piece: str, end: str) -> None:
    def seconds(length: int) -> float:
        text = begin + piece * (length // len(piece)) + end
        started = time.process_time()
        parse(text)
        normalise(text)
        return time.process_time() - started

    took = seconds(400)
    for length in (1_600, 6_400, 25_600, 102_400):
        before, took = took, seconds(length)
        assert took < 8 * before + NOISE


def test_turn_is_a_pair() -> None:
    assert parse("Action: look") == Turn("", "look")
