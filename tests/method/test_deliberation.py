"""Which texts of the base model may become deliberation thoughts."""

import pytest

from sandcli.method.deliberation import concluded, rejection_reason


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
def test_deliberation_ends_with_its_first_conclusion(text: str, conclusion: str | None) -> None:
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
def test_deliberation_is_rejected_for_a_stated_reason(text: str, why: str | None) -> None:
    assert rejection_reason(text, "stop", "take lamp", CANDIDATES) == why


def test_token_limit_matters_only_before_the_conclusion() -> None:
    assert rejection_reason("I could take lamp", "length", "take lamp", CANDIDATES) == "cut by the token limit"
    assert rejection_reason("I look. So I will take lamp. And", "length", "take lamp", CANDIDATES) is None


def test_action_inside_a_longer_word_is_not_a_mention() -> None:
    assert rejection_reason("I could look. So I will go on waiting.", "stop", "wait", ["wait", "look"]) is not None


def test_word_that_starts_like_a_candidate_is_not_that_candidate() -> None:
    text = "To look is free. So I will take lamp after overlooking nothing."
    assert rejection_reason(text, "stop", "take lamp", CANDIDATES) is None


@pytest.mark.parametrize(
    ("end", "decides"), [("", True), (", it is near", True), (" in order to see", True), (" in the box", False)]
)
def test_longer_action_is_a_different_action(end: str, decides: bool) -> None:
    why = rejection_reason(f"To look is free. So I will take lamp{end}.", "stop", "take lamp", CANDIDATES)
    assert (why is None) is decides
