"""What the base model is shown, and which of its texts become data."""

import pytest

from sandcli.method.deliberation import concluded, rejection_reason
from sandcli.method.texts import first_sentences, format_steps, repeats
from sandcli.records import Step


def steps(count: int) -> list[Step]:
    return [Step(thought="", action=f"act {n}", observation=f"seen\n {n}", score=0.0) for n in range(1, count + 1)]


def test_steps_are_told_in_order_with_what_they_led_to() -> None:
    assert " ".join(format_steps(steps(2), 4).split()) == "1. act 1 -> seen 1 2. act 2 -> seen 2"


def test_nothing_to_tell_is_said() -> None:
    assert format_steps([], 4).startswith("(nothing")


def test_a_step_without_an_action_is_told_as_such() -> None:
    step = Step(thought="Hm.", action="", observation="Invalid.", score=0.0)
    assert format_steps([step], 4) == "1. (no valid action) -> Invalid."


@pytest.mark.parametrize(("most", "shown"), [(4, [1, 2, 9, 10]), (5, [1, 2, 8, 9, 10]), (2, [1, 10])])
def test_the_middle_of_a_long_list_is_marked_as_left_out(most: int, shown: list[int]) -> None:
    text = format_steps(steps(10), most)
    assert [n for n in range(1, 11) if f" {n}. act {n} -> seen {n}" in f" {text}"] == shown
    assert f"[{10 - most} steps left out here]" in text


def test_a_list_that_fits_is_told_whole() -> None:
    assert "left out" not in format_steps(steps(4), 4)


def test_a_long_observation_is_cut_with_a_mark() -> None:
    step = Step(thought="", action="look", observation="word " * 400, score=0.0)
    assert format_steps([step], 4).endswith("[...]")
    assert len(format_steps([step], 4)) < 400


@pytest.mark.parametrize(
    ("text", "most", "kept"),
    [
        ("One. Two! Three?", 2, "One. Two!"),
        ("One. Two and", 2, "One."),
        ("One\n is  one. Two.", 1, "One is one."),
        ("No end", 2, "No end"),
        ("It holds 0.5 l of water. It boils.", 1, "It holds 0.5 l of water."),
        ('I read "stop." Then I left.', 1, 'I read "stop."'),
        ("Wait... I see. Go.", 2, "Wait... I see."),
        ("", 2, ""),
    ],
)
def test_the_first_whole_sentences_are_kept_from_their_beginning(text: str, most: int, kept: str) -> None:
    assert first_sentences(text, most) == kept


@pytest.mark.parametrize(
    ("text", "conclusion"),
    [
        ("A is slow. So I will go to hall.", "A is slow. So I will go to hall."),
        ("A. So I will wait.\nSo I will go! And then?", "A. So I will wait."),
        ("A is slow. So I will go to hall", None),
        ("A is slow.", None),
        ("", None),
    ],
)
def test_a_deliberation_ends_with_its_first_conclusion(text: str, conclusion: str | None) -> None:
    found = concluded(text)
    assert (found and found.strip()) == conclusion


CANDIDATES = ["take lamp", "look", "go to hall"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("To look is free, but the lamp is here. So I will take lamp.", None),
        ("To look is free. So I will Take  Lamp.", None),
        ('"look" shows little. So I will "take lamp".', None),
        ("To look is free. So I will take lamp. I could look, as the expert says.", None),
        ("I take lamp and take lamp and take lamp and look. So I will take lamp.", None),
        ("Fine.\nAction: look\nSo I will take lamp.", "contains an action line"),
        ("Fine. Action: look. So I will take lamp.", "contains an action line"),
        ("It is best so. It is best so. So I will take lamp.", "repeats itself"),
        ("The expert would do it. So I will take lamp.", "speaks of what the agent cannot know"),
        ("The rollouts went well. So I will take lamp.", "speaks of what the agent cannot know"),
        ("Its reward is high. So I will take lamp.", "speaks of what the agent cannot know"),
        ("To look is best. So I will look.", "never mentions the expert's action"),
        ("I could take lamp.", "comes to no conclusion"),
        ("To take lamp is best. So I will not take lamp.", "does not end in the expert's action"),
        ("To take lamp is best. So I will look first and then take lamp.", "does not end in the expert's action"),
        ("I could take lamp. So I will look.", "does not end in the expert's action"),
        ("I could take lamp, or look. So I will wait.", "does not end in the expert's action"),
        ("I could look or take lamp. So I will wait.", "does not end in the expert's action"),
        ("I could take lamp. So I will look and not take lamp but look.", "does not end in the expert's action"),
    ],
)
def test_the_checks_of_a_deliberation(text: str, why: str | None) -> None:
    assert rejection_reason(text, "stop", "take lamp", CANDIDATES) == why


def test_a_deliberation_that_was_cut_is_told_from_one_that_stopped() -> None:
    assert rejection_reason("I could take lamp", "length", "take lamp", CANDIDATES) == "cut by the token limit"
    assert rejection_reason("I look. So I will take lamp. And", "length", "take lamp", CANDIDATES) is None


def test_an_action_inside_a_longer_word_is_no_mention() -> None:
    assert rejection_reason("I could look. So I will go on waiting.", "stop", "wait", ["wait", "look"]) is not None


def test_a_word_that_only_begins_like_a_candidate_is_none() -> None:
    text = "To look is free. So I will take lamp after overlooking nothing."
    assert rejection_reason(text, "stop", "take lamp", CANDIDATES) is None


@pytest.mark.parametrize(
    ("end", "decides"), [("", True), (", it is near", True), (" in order to see", True), (" in the box", False)]
)
def test_a_longer_action_is_another_one(end: str, decides: bool) -> None:
    why = rejection_reason(f"To look is free. So I will take lamp{end}.", "stop", "take lamp", CANDIDATES)
    assert (why is None) is decides


@pytest.mark.parametrize(
    ("text", "circles"),
    [
        ("The lamp is there. I go there. The lamp is there.", True),
        ("I go. I see. I go.", False),
        ("first I go to the hall, " * 3, True),
        ("one two three four five six and one two three four five six again", False),
        ("", False),
    ],
)
def test_repeats(text: str, circles: bool) -> None:
    assert repeats(text) is circles
