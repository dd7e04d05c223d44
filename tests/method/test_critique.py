"""The prompt of a critique, and the verdict it may start with."""

from typing import Any

import msgspec
import pytest

from sandcli.messages import Message
from sandcli.method.critique import Case, critique_prompt
from sandcli.method.inconsistency import ExpertStep
from sandcli.prompts import SETS, Prompts
from sandcli.records import End
from tests.method.made_up import rollout, trajectory


def prompt(case: Case, name: str, by_reward: bool = False) -> list[Message]:
    return critique_prompt(case, Prompts(name), 100, by_reward)


@pytest.mark.parametrize(
    ("reward", "end", "says"),
    [(1.0, "done", "advanced"), (0.25, "done", "hindered"), (0.25, "max_steps", "did not affect")],
)
def test_critique_starts_with_the_verdict_of_the_rewards(reward: float, end: Any, says: str) -> None:
    case = Case(ExpertStep(trajectory(1.0), 1), msgspec.structs.replace(rollout(reward, 1, "take lamp"), end=end))
    assert prompt(case, "compact", by_reward=True)[-1].content == f'With "take lamp" I {says} the task, because'
    assert prompt(case, "compact")[-1].content == 'With "take lamp" I'
    assert prompt(case, "standard", by_reward=True)[-1].content == f"This action {says} the task, because"
    assert prompt(case, "standard")[-1].content == "This action"


def test_nothing_advances_if_the_expert_gains_nothing() -> None:
    case = Case(ExpertStep(trajectory(0.0), 1), rollout(0.0, 1, "take lamp"))
    assert "advanced" not in prompt(case, "standard", by_reward=True)[-1].content


@pytest.mark.parametrize(
    ("end", "says"),
    [
        ("done", "the episode ended before the task was completed"),
        ("max_steps", "the step limit was reached"),
        ("invalid_actions", "too many invalid actions in a row"),
        ("context", "its text became too long"),
    ],
)
def test_critic_is_told_why_the_episode_ended(end: End, says: str) -> None:
    case = Case(ExpertStep(trajectory(1.0), 1), msgspec.structs.replace(rollout(0.25, 1, "take lamp"), end=end))
    for name in SETS:
        assert says in prompt(case, name)[-2].content
    done = Case(case.at, rollout(1.0, 1, "take lamp"))
    assert "the task was completed" in prompt(done, "standard")[-2].content


def test_critic_is_not_told_of_a_step_limit_where_a_recording_stops() -> None:
    recorded = msgspec.structs.replace(rollout(0.25, 1, "take lamp"), end="max_steps", expert=True)
    told = prompt(Case(ExpertStep(trajectory(0.25), 1), recorded), "standard")[-2].content
    assert "In the end: I stopped before the task was completed, and" in told and "limit" not in told


def test_critic_sees_the_newest_observation_and_the_outcome_in_full() -> None:
    """The candidates are about the battery, which is at the end of a long listing."""
    listing = "a wire, a switch, a light bulb, " * 40 + "a battery"
    before = trajectory(1.0)
    seen = msgspec.structs.replace(before.steps[0], observation=listing)
    at = ExpertStep(msgspec.structs.replace(before, steps=[seen, *before.steps[1:]]), 1)
    tried = rollout(0.0, 1, "take lamp", "look")
    outcome = [msgspec.structs.replace(step, observation=f"{n} {listing}") for n, step in enumerate(tried.steps)]
    asked = critique_prompt(Case(at, msgspec.structs.replace(tried, steps=outcome)), Prompts("standard"), 0, False)
    assert [asked[-2].content.count(text) for text in (listing, f"0 {listing}", f"1 {listing}")] == [3, 1, 1]
