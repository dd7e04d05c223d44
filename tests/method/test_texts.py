"""Texts for and from the base model: steps, whole sentences, repetition."""

import pytest

from sandcli.method.texts import first_sentences, format_steps, paragraphs, repeats
from sandcli.records import Step


def steps(count: int) -> list[Step]:
    return [Step(thought="", action=f"act {n}", observation=f"seen\n {n}", score=0.0) for n in range(1, count + 1)]


def test_steps_are_numbered_with_their_observations() -> None:
    assert format_steps(steps(2), 100) == "1. act 1 -> seen 1\n2. act 2 -> seen 2"


def test_no_steps_are_written_as_nothing() -> None:
    assert format_steps([], 100).startswith("(nothing")


def test_step_without_an_action_is_marked() -> None:
    step = Step(thought="Hm.", action="", observation="Invalid.", score=0.0)
    assert format_steps([step], 100) == "1. (no valid action) -> Invalid."


def long(number: int, words: int) -> Step:
    return Step(thought="", action=f"act {number}", observation=f"seen {number} " * words, score=0.0)


def test_newest_observation_is_complete_whatever_its_length() -> None:
    newest = long(3, 400)
    shown = format_steps([*steps(2), newest], 0)
    assert shown == f"[2 earlier steps left out]\n3. act 3 -> {newest.observation.strip()}"


def test_budget_is_filled_from_the_newest_step_backwards() -> None:
    trajectory = [*steps(2), long(3, 50), *steps(5)[3:]]
    assert format_steps(trajectory, 200).splitlines()[:2] == ["1. act 1 -> seen 1", "2. act 2 -> seen 2"]
    assert "left out" not in format_steps(trajectory, 200)
    assert format_steps(trajectory, 30) == (
        "1. act 1 -> seen 1\n2. act 2 -> seen 2\n3. act 3 -> [observation left out]\n"
        "4. act 4 -> seen 4\n5. act 5 -> seen 5"
    )
    assert format_steps(trajectory, 17) == (
        "[2 earlier steps left out]\n3. act 3 -> [observation left out]\n4. act 4 -> seen 4\n5. act 5 -> seen 5"
    )


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


def test_paragraphs_keep_their_lines() -> None:
    assert paragraphs(" One  two.\n\n\t- three\n \n") == "One two.\n- three"
