"""The prompt of a critique, and the verdict it may start with."""

from typing import Any

import msgspec
import pytest

from sandcli.method.critique import Case, critique_prompt
from sandcli.method.inconsistency import ExpertStep
from sandcli.settings import CritiqueSettings
from tests.method.made_up import rollout, trajectory


@pytest.mark.parametrize(
    ("reward", "end", "says"),
    [(1.0, "done", "advanced"), (0.25, "done", "hindered"), (0.25, "max_steps", "did not affect")],
)
def test_critique_starts_with_the_verdict_of_the_rewards(reward: float, end: Any, says: str) -> None:
    case = Case(ExpertStep(trajectory(1.0), 1), msgspec.structs.replace(rollout(reward, 1, "take lamp"), end=end))
    assert (
        critique_prompt(case, CritiqueSettings(verdict="reward"))[-1].content
        == f'With "take lamp" I {says} the task, because'
    )
    assert critique_prompt(case, CritiqueSettings())[-1].content == 'With "take lamp" I'


def test_nothing_advances_if_the_expert_gains_nothing() -> None:
    case = Case(ExpertStep(trajectory(0.0), 1), rollout(0.0, 1, "take lamp"))
    assert "advanced" not in critique_prompt(case, CritiqueSettings(verdict="reward"))[-1].content
