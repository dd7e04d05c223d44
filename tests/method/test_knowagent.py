"""KnowAgent's data: the shortest success on each task, with an action path in every turn."""

import msgspec
import pytest

from sandcli.episodes import Episode
from sandcli.method.knowagent import has_action_path, shortest_successes
from sandcli.records import Task, Trajectory
from tests.method.made_up import SHORT, episode, trajectory


def with_paths(played: Episode, missing: int = -1) -> Episode:
    """An episode whose thoughts begin with an action path, except the one of a step."""
    steps = [
        msgspec.structs.replace(step, thought="I act." if t == missing else "ActionPath: start -> look\nI act.")
        for t, step in enumerate(played.steps)
    ]
    return msgspec.structs.replace(played, steps=steps)


def kept(*explored: Episode) -> list[Trajectory]:
    return list(shortest_successes([trajectory()], explored))


def test_shortest_success_of_a_task_is_kept_and_the_first_of_equals() -> None:
    longer, short, other = episode(0, "look", *SHORT), episode(1, *SHORT), episode(2, *reversed(SHORT))
    (own,) = kept(*map(with_paths, (longer, short, other)))
    assert ([step.action for step in own.steps], own.success) == (SHORT, True)
    assert (own.id, own.task, own.source) == ("a", trajectory().task, "explored, draw 1")


def test_failures_and_other_tasks_are_left_out() -> None:
    assert kept(with_paths(episode(0, *SHORT, reward=0.75)), with_paths(episode(1, *SHORT, task=1))) == []


def test_turn_without_an_action_or_a_path_is_not_learned() -> None:
    (own,) = kept(
        with_paths(episode(0, *SHORT[1:]), missing=1),
        with_paths(episode(1, "", *SHORT[2:])),
        with_paths(episode(2, *SHORT)),
    )
    assert own.source == "explored, draw 2"


def test_trajectories_follow_the_experts_and_a_task_counts_once() -> None:
    second = msgspec.structs.replace(trajectory(), id="b", task=Task(name="fetch", variation=1))
    again = msgspec.structs.replace(trajectory(), id="a (2)")
    explored = [with_paths(episode(0, *SHORT, task=1)), with_paths(episode(0, *SHORT))]
    assert [own.id for own in shortest_successes([trajectory(), again, second], explored)] == ["a", "b"]


@pytest.mark.parametrize(
    ("thought", "has"),
    [
        ("ActionPath: start", True),
        ("ActionPath: start -> go to -> take\nI hold it.", True),
        ("\nactionpath: Start -> go to", True),
        ("ActionPath: go to", False),
        ("I have to find it. ActionPath: start", False),
        ("", False),
    ],
)
def test_action_path_begins_a_thought(thought: str, has: bool) -> None:
    assert has_action_path(thought) is has
