"""Eq. 4: a step is inconsistent if the sampled actions and the expert's are more than one action."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandcli.agent.turns import normalise
from sandcli.method.inconsistency import ExpertStep, candidates, is_inconsistent, sample_record
from sandcli.records import Candidate, Draw
from tests.agent.texts import ACTIONS
from tests.method.made_up import DETOUR, trajectory

SPELLINGS = st.sampled_from(["look", "Look.", " look ", "`take lamp`", "take  lamp", "Take Lamp", "go to hall", "wait"])
"""Few actions in several spellings, so that draws often agree."""


def draws(*actions: str) -> list[Draw]:
    return [Draw(thought="", action=action, tokens=3) for action in actions]


DRAWS = st.lists(SPELLINGS | ACTIONS, max_size=8).map(lambda actions: draws(*actions))


@pytest.mark.parametrize(
    ("sampled", "inconsistent"),
    [
        (["look"], False),
        (["look", "Look.", '"look"'], False),
        (["look", "take lamp"], True),
        (["take lamp"], True),
        (["take lamp", "take lamp", "take lamp"], True),
    ],
)
def test_step_is_inconsistent_if_the_agent_disagrees_with_itself_or_the_expert(
    sampled: list[str], inconsistent: bool
) -> None:
    assert is_inconsistent(candidates("look", draws(*sampled))) is inconsistent


def test_step_without_a_readable_draw_is_consistent() -> None:
    """Algorithm 1 as printed skips a step with an empty set; the expert's action is always in it, and is alone here."""
    unique = candidates("look", [])
    assert unique == [Candidate(action="look", count=0)]
    assert not is_inconsistent(unique)


@given(SPELLINGS | ACTIONS, DRAWS)
def test_candidates_are_never_empty_and_start_with_the_expert(expert: str, drawn: list[Draw]) -> None:
    assert candidates(expert, drawn)[0].action == normalise(expert)


@pytest.mark.slow
@given(SPELLINGS | ACTIONS, DRAWS)
def test_counts_of_candidates_sum_to_the_draws(expert: str, drawn: list[Draw]) -> None:
    unique = candidates(expert, drawn)
    assert sum(candidate.count for candidate in unique) == len(drawn)
    assert all(candidate.count > 0 for candidate in unique[1:])


@given(SPELLINGS | ACTIONS, DRAWS)
def test_candidates_follow_in_the_order_of_their_first_draw(expert: str, drawn: list[Draw]) -> None:
    seen = [normalise(expert), *(normalise(draw.action) for draw in drawn)]
    assert [candidate.action for candidate in candidates(expert, drawn)] == sorted(set(seen), key=seen.index)


@given(SPELLINGS | ACTIONS, DRAWS)
def test_one_unique_action_is_skipped_and_two_are_flagged(expert: str, drawn: list[Draw]) -> None:
    actions = {normalise(expert), *(normalise(draw.action) for draw in drawn)}
    assert is_inconsistent(candidates(expert, drawn)) is (len(actions) > 1)


@given(DRAWS, st.integers(0, 3))
def test_record_counts_the_draws_that_could_not_be_read(drawn: list[Draw], unreadable: int) -> None:
    record = sample_record(ExpertStep(trajectory(), 1), drawn, len(drawn) + unreadable)
    assert (record.id, record.step, record.expert_action) == ("a", 1, DETOUR[1])
    assert (record.drawn, record.unparsable, record.samples) == (len(drawn) + unreadable, unreadable, drawn)
    assert record.candidates == candidates(DETOUR[1], drawn)
    assert record.deliberate is is_inconsistent(record.candidates)


def test_prefix_holds_the_steps_before() -> None:
    at = ExpertStep(trajectory(), 2)
    assert ([step.action for step in at.prefix], at.expert.action) == (DETOUR[:2], DETOUR[2])
