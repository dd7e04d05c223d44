"""Texts for and from the base model: steps, whole sentences, repetition."""

import pytest

from sandcli.method.texts import first_sentences, format_steps, repeats
from sandcli.records import Step


def steps(count: int) -> list[Step]:
    return [Step(thought="", action=f"act {n}", observation=f"seen\n {n}", score=0.0) for n in range(1, count + 1)]


def test_steps_are_numbered_with_their_observations() -> None:
    assert " ".join(format_steps(steps(2), 4).split()) == "1. act 1 -> seen 1 2. act 2 -> seen 2"


def test_no_steps_are_written_as_nothing() -> None:
    assert format_steps([], 4).startswith("(nothing")


def test_step_without_an_action_is_marked() -> None:
    step = Step(thought="Hm.", action="", observation="Invalid.", score=0.0)
    assert format_steps([step], 4) == "1. (no valid action) -> Invalid."


@pytest.mark.parametrize(("most", "shown"), [(4, [1, 2, 9, 10]), (5, [1, 2, 8, 9, 10]), (2, [1, 10])])
def test_middle_of_a_long_list_is_left_out_with_a_mark(most: int, shown: list[int]) -> None:
    text = format_steps(steps(10), most)
    assert [n for n in range(1, 11) if f" {n}. act {n} -> seen {n}" in f" {text}"] == shown
    assert f"[{10 - most} steps left out here]" in text


def test_list_that_fits_is_written_whole() -> None:
    assert "left out" not in format_steps(steps(4), 4)


def test_long_observation_is_cut_with_a_mark() -> None:
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
def test_first_whole_sentences_are_kept(text: str, most: int, kept: str) -> None:
    assert first_sentences(text, most) == kept


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
def test_repetition_is_a_sentence_or_six_words_again_and_again(text: str, circles: bool) -> None:
    assert repeats(text) is circles
