"""D_rft: the expert's trajectories, and the policy's own successes that differ from them and from each other."""

import msgspec

from sandcli.episodes import Episode
from sandcli.method.rejection_sampling import d_rft, own_successes
from tests.method.made_up import DETOUR, SHORT, episode, steps, trajectory


def draws(*explored: Episode) -> list[str]:
    """Where the policy's own trajectories come from."""
    return [own.source for own in own_successes([trajectory()], explored)]


def test_own_successes_follow_the_expert() -> None:
    expert, own = d_rft([trajectory()], [episode(0, *SHORT)])
    assert expert == trajectory()
    assert ([step.action for step in own.steps], own.reward, own.success) == (SHORT, 1.0, True)
    assert (own.id, own.env, own.task, own.source) == ("a (2)", expert.env, expert.task, "explored, draw 0")


def test_failed_and_partly_rewarded_episodes_are_rejected() -> None:
    assert draws(episode(0, *SHORT, reward=0.75), episode(1, *SHORT, reward=0.0), episode(2, *SHORT)) == [
        "explored, draw 2"
    ]


def test_same_actions_count_once_whatever_was_thought() -> None:
    thoughtful = episode(1, *SHORT)
    thoughtful = msgspec.structs.replace(
        thoughtful, steps=[msgspec.structs.replace(step, thought="Hm.") for step in thoughtful.steps]
    )
    assert draws(episode(0, *SHORT), thoughtful, episode(2, "look", *SHORT)) == ["explored, draw 0", "explored, draw 2"]


def test_actions_of_the_expert_are_not_new() -> None:
    assert draws(episode(0, *DETOUR)) == []
    loud = trajectory()
    loud = msgspec.structs.replace(loud, steps=steps(*(f"{action.upper()}." for action in DETOUR)))
    assert list(own_successes([loud], [episode(0, *DETOUR)])) == []


def test_turn_without_an_action_is_not_learned() -> None:
    assert draws(episode(0, "", *SHORT)) == []


def test_episode_of_a_task_outside_d_exp_is_left_out() -> None:
    assert draws(episode(0, *SHORT, task=1)) == []


def test_ids_stay_unique_if_d_exp_holds_own_trajectories_already() -> None:
    before = list(d_rft([trajectory()], [episode(0, *SHORT)]))
    after = list(d_rft(before, [episode(0, *SHORT), episode(1, "look", *SHORT)]))
    assert [found.id for found in after] == ["a", "a (2)", "a (3)"]
