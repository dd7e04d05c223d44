"""The expert switch: which rollout, if any, takes the expert's place."""

from typing import Any

import msgspec
import pytest

from sandcli.method.expert_switch import switched, switches
from tests.method.made_up import SHORT, rollout, trajectory


@pytest.mark.parametrize(
    ("rule", "reward", "actions", "taken"),
    [
        ("better", 0.75, ("take lamp",) * 9, True),
        ("better", 0.5, ("take lamp",), False),
        ("shorter", 0.5, ("take lamp",) * 3, True),
        ("shorter", 0.5, ("take lamp",) * 4, False),
        ("shorter", 0.25, ("take lamp",), False),
        ("never", 1.0, ("take lamp",), False),
        ("better", 1.0, ("take lamp", ""), False),
    ],
)
def test_rule_decides_whether_a_rollout_replaces_the_expert(
    rule: Any, reward: float, actions: tuple[str, ...], taken: bool
) -> None:
    found = switches({"a": trajectory()}, [rollout(reward, 1, *actions)], rule)
    assert ("a" in found) is taken


@pytest.mark.parametrize("end", ["invalid_actions", "context"])
def test_rollout_that_ended_early_replaces_nothing(end: Any) -> None:
    broken = msgspec.structs.replace(rollout(0.75, 1, "take lamp"), end=end)
    assert not switches({"a": trajectory()}, [broken], "better")


def test_rollout_of_the_expert_replaces_nothing() -> None:
    assert not switches({"a": trajectory()}, [rollout(1.0, 1, "look", candidate=0)], "better")


def test_best_rollout_wins_then_the_shortest_then_the_earliest() -> None:
    good, better = rollout(0.75, 0, "look"), rollout(1.0, 2, "take lamp", "drop lamp")
    shorter = rollout(1.0, 2, "take lamp", candidate=2)
    assert switches({"a": trajectory()}, [good, better, shorter], "better")["a"] is shorter
    early, late = rollout(1.0, 1, "look", "look"), rollout(1.0, 2, "look")
    assert switches({"a": trajectory()}, [early, late], "better")["a"] is early


def test_source_of_a_switched_trajectory_names_the_switch() -> None:
    after = switched(trajectory(), rollout(1.0, 1, *SHORT[1:]))
    assert after.actions == SHORT and after.reward == 1.0 and after.success
    assert after.source == "gold; from step 1 on candidate 1 instead of the expert"
