"""The plans in experiments/: every setting exists, and every run has its stages."""

from pathlib import Path

import pytest

from sandcli.experiments import Experiment
from sandcli.plans import read_plan
from tests.helpers import REPO

PLANS = sorted((REPO / "experiments").rglob("*.toml"))


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.stem)
def test_settings_of_a_plan_exist(plan: Path, tmp_path: Path) -> None:
    runs = Experiment(tmp_path, plan, None, None, {}).outline()
    assert len(runs) > 5 and all(line.endswith(" eval") for line in runs)


def test_plans_have_the_same_arms() -> None:
    """Those of the experiments in docs/results.md leave some out, and one plan compares methods."""
    same = [plan for plan in PLANS if not plan.stem.endswith("-135m") and plan.stem != "table2-small"]
    small, *others = ({line.split(":")[0] for line in arms(plan)} for plan in same)
    assert others and all(other == small for other in others)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.stem)
def test_arms_of_a_plan_differ_in_their_settings(plan: Path) -> None:
    arms = [
        {name: value for name, value in arm.items() if name != "updates_of"} for arm in read_plan(plan).arms.values()
    ]
    assert [arm for arm in arms if arms.count(arm) > 1] == []


def arms(plan: Path) -> list[str]:
    return Experiment(Path(), plan, None, 0, {}).outline()
