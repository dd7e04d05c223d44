"""Which thoughts count as deliberations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandcli.agent.form import is_deliberation, listed_options, opening
from tests.agent.texts import ACTIONS


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
def test_deliberation_lists_at_least_two_options_at_its_start(thought: str, weighs: bool) -> None:
    assert is_deliberation(thought) is weighs


def test_opening_numbers_the_options() -> None:
    assert opening(["look", "go to hall"]) == "My options: (1) look; (2) go to hall."


@given(st.lists(ACTIONS, min_size=2, max_size=5))
def test_opening_of_two_or_more_options_is_recognised(actions: list[str]) -> None:
    assert is_deliberation(opening(actions))


def test_opening_of_one_option_is_no_deliberation() -> None:
    assert not is_deliberation(opening(["look"]))


def test_listed_options_are_read_back_from_an_opening() -> None:
    assert listed_options(f"{opening(['look', 'go to hall'])} I go.") == ["look", "go to hall"]
