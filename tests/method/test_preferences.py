"""Preference pairs: what earned more is chosen, from the same history, in the agent's own turns."""

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from sandcli.episodes import Episode, GivenPlan
from sandcli.messages import Message, Said
from sandcli.method.preferences import pair, plan_pair, with_episode, with_rollout
from sandcli.records import Pair, Step
from tests.method.made_up import DETOUR, SHORT, episode, rollout, trajectory


def actions(said: Sequence[Said]) -> list[str]:
    """The actions in some messages, which begin and end with a turn of the agent."""
    roles = [message.role for message in said]
    assert roles == ["assistant", "user"] * (len(roles) // 2) + ["assistant"]
    return [message.content.removeprefix("Action: ") for message in said[::2]]


def made(found: Pair | str) -> Pair:
    assert isinstance(found, Pair)
    return found


@pytest.mark.parametrize(
    ("reward", "chosen", "rejected"), [(0.2, "expert", "explored"), (0.9, "explored", "expert"), (0.5, None, None)]
)
def test_trajectory_with_the_higher_reward_is_chosen(reward: float, chosen: str | None, rejected: str | None) -> None:
    found = pair(with_episode(trajectory(0.5), episode(3, *SHORT, reward=reward)), 0)
    if chosen is None:
        assert found == "both earned the same"
        return
    both = made(found)
    assert (both.chosen_from, both.rejected_from, both.key) == (chosen, rejected, ("a", 3))
    assert {both.chosen_from: actions(both.chosen), both.rejected_from: actions(both.rejected)} == {
        "expert": DETOUR,
        "explored": SHORT,
    }
    assert sorted([both.chosen_reward, both.rejected_reward]) == sorted([0.5, reward])
    assert [message.role for message in both.prompt] == ["user"]


@pytest.mark.parametrize(("extra", "kept"), [(0, 9), (1, 6), (2, 7), (9, 9)])
def test_rejected_trajectory_is_cut_to_so_many_turns_more_than_the_chosen_one(extra: int, kept: int) -> None:
    both = made(pair(with_episode(trajectory(0.5), episode(0, *["look"] * 9, reward=0.0)), extra))
    assert len(actions(both.rejected)) == kept and len(actions(both.chosen)) == len(DETOUR)


def test_step_is_compared_from_its_history_on() -> None:
    both = made(pair(with_rollout(trajectory(0.5), rollout(0.1, 1, "eat lamp", "look", candidate=2)), 0))
    assert both.key == ("a", 1, 2) and both.rejected_from == "rollout"
    assert actions(both.chosen) == DETOUR[1:] and actions(both.rejected) == ["eat lamp", "look"]
    assert [message.content for message in both.prompt] == ["", "Action: go to kitchen", "Observation: "]


def test_better_trajectory_with_an_unreadable_turn_is_not_taught() -> None:
    better = episode(0, *SHORT, reward=0.9)
    broken = replace(better, steps=[*better.steps, Step(thought="Hm", action="", observation="", score=0.9)])
    assert pair(with_episode(trajectory(0.5), broken), 0) == "the better one has a turn without an action"
    worse = replace(broken, reward=0.1)
    assert made(pair(with_episode(trajectory(0.5), worse), 0)).rejected[-1].content == "Hm"


@pytest.mark.parametrize("further", [(), ("look",)])
def test_worse_trajectory_must_not_repeat_the_better_one(further: tuple[str, ...]) -> None:
    found = pair(with_episode(trajectory(0.5), episode(0, *DETOUR, *further, reward=0.1)), 0)
    assert found == "the worse one begins with all turns of the better one"


def test_episode_without_a_turn_gives_no_pair() -> None:
    assert pair(with_episode(trajectory(0.5), episode(0, reward=0.0)), 0) == "one of them has no turn"


def played(draw: int, *rewards: float, text: str = "") -> list[Episode]:
    plan = GivenPlan(draw=draw, text=text or f"plan {draw}", tokens=3)
    return [replace(episode(number, *SHORT, reward=reward), plan=plan) for number, reward in enumerate(rewards)]


QUESTION = [Message("system", "Write a plan."), Message("user", "Find the lamp.")]


def test_best_plan_of_a_task_is_chosen_and_its_worst_rejected_by_their_means() -> None:
    episodes = [*played(0, 0.5, 0.5), *played(1, 1.0, 0.25), *played(2, 0.75, 0.25), *played(3, 0.0, 0.5)]
    both = made(plan_pair(trajectory(), QUESTION, episodes))
    assert [message.content for message in both.prompt] == ["Write a plan.", "Find the lamp."]
    assert (both.chosen, both.rejected) == ([Said("assistant", "plan 1")], [Said("assistant", "plan 3")])
    assert (both.chosen_reward, both.rejected_reward, both.key) == (0.625, 0.25, ("a",))
    assert both.chosen_from == both.rejected_from == "plan"


@pytest.mark.parametrize(
    ("episodes", "why"),
    [
        ([episode(0, *SHORT, reward=0.5)], "no plan was played"),
        ([*played(0, 0.5), *played(1, 0.25, 0.75)], "all plans earned the same"),
        ([*played(0, 0.5, text="x"), *played(1, 0.25, text="x")], "the best and the worst plan are the same text"),
    ],
)
def test_plans_that_cannot_be_told_apart_give_no_pair(episodes: list[Episode], why: str) -> None:
    assert plan_pair(trajectory(), QUESTION, episodes) == why
