"""Plans: written for the training tasks, played by the policy, compared, and given in an evaluation."""

from pathlib import Path
from typing import Any

import pytest

from sandcli.config import resolve
from sandcli.core.run import Run
from sandcli.errors import Exit, UsageError
from tests.core.runs import failing
from tests.helpers import lines, make_run, perform, state


@pytest.fixture
def run(tmp_path: Path) -> Path:
    root = make_run(tmp_path / "run", method__name="mpo", plan__n=4, explore__n=2, model__policy="x")
    perform("collect", root, limit=3)
    perform("plan", root)
    return root


def test_planner_advises_on_every_training_task_and_what_it_leaves_empty_is_counted(run: Path) -> None:
    plans = list(Run(run).plans())
    made = perform("plan", run, plan__n=5).manifest
    assert made is not None
    assert len(list(Run(run).plans())) + len(made.left_out) == 15 and set(made.left_out.values()) == {
        "the planner wrote nothing"
    }
    assert {plan.task.variation for plan in plans} == {0, 1, 2}
    assert {plan.plan for plan in plans} == {"1. Go to the kitchen.", "1. Fly away."}
    assert all(plan in list(Run(run).plans()) for plan in plans)


def test_policy_plays_every_plan_and_its_episodes_hold_it(run: Path) -> None:
    done = perform("explore", run)
    assert done.exit is Exit.DONE and not (run / "rft.jsonl").exists()
    played = [(e.task, e.plan.draw, e.plan.text, e.draw) for e in Run(run).explored() if e.plan is not None]
    wanted = [(plan.task, plan.draw, plan.plan, draw) for plan in Run(run).plans() for draw in range(2)]
    assert sorted(map(str, played)) == sorted(map(str, wanted))
    for episode in Run(run).explored():
        assert episode.plan is not None
        followed = "go to kitchen" if "kitchen" in episode.plan.text else "fly"
        assert episode.steps[0].action == followed


def test_more_episodes_keep_those_that_there_are(run: Path) -> None:
    perform("explore", run)
    before = lines(run / "explored.jsonl")
    assert state("explore", run, explore__n=3).kind == "wider"
    perform("explore", run, explore__n=3)
    after = lines(run / "explored.jsonl")
    assert len(after) * 2 == len(before) * 3 and all(line in after for line in before)


def test_plans_that_earned_most_and_least_become_a_pair(run: Path) -> None:
    perform("explore", run)
    made = perform("pairs", run).manifest
    assert made is not None
    pairs = list(Run(run).pairs())
    assert len(pairs) + len(made.left_out) == 3 and pairs
    for pair in pairs:
        assert pair.chosen_reward > pair.rejected_reward and "Task: " in pair.prompt[-1].content
        assert pair.chosen[0].content == "1. Go to the kitchen." and pair.rejected[0].content == "1. Fly away."


def test_evaluation_gives_the_agent_a_greedy_plan(run: Path) -> None:
    settings: dict[str, Any] = {"eval__models": ["base"], "eval__planner": "base", "eval__splits": ["seen"]}
    perform("eval", run, **settings)
    episodes = list(Run(run).episodes())
    assert episodes and {episode.plan.text for episode in episodes if episode.plan} == {"1. Go to the kitchen."}
    assert {episode.steps[0].action for episode in episodes} == {"go to kitchen"}
    assert state("eval", run, **settings).kind == "done"
    assert state("eval", run, **settings, plan__max_tokens=9).kind == "stale"
    assert state("eval", run, **(settings | {"eval__planner": ""})).kind == "stale"


def test_method_sets_what_it_is_about(run: Path) -> None:
    chosen = resolve(run, {}, {}).settings
    assert (chosen.explore.n, chosen.explore.temperature) == (2, 0.7)
    assert (chosen.eval.models, chosen.eval.planner) == (["policy"], "model")
    with pytest.raises(UsageError, match="which is a planner"):
        resolve(run, {}, {"eval.models": ["model"]})


def test_plan_that_fails_to_be_written_fails_its_unit_alone(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"eval__models": ["base"], "eval__planner": "base", "eval__splits": ["seen"]}
    with failing(monkeypatch, "(House 8.)"):
        made = perform("eval", run, **settings, run__retries=0)
    assert made.exit is Exit.FAILED_UNITS and 0 < len(made.failures) < 3
    assert perform("eval", run, **settings).exit is Exit.DONE


def test_tokens_of_the_plan_count_in_an_evaluation(run: Path) -> None:
    settings: dict[str, Any] = {"eval__models": ["base"], "eval__splits": ["seen"]}
    perform("eval", run, **settings, eval__planner="base")
    planned = {episode.task: episode for episode in Run(run).episodes()}
    assert all(episode.plan and episode.tokens > episode.plan.tokens > 0 for episode in planned.values())


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"method.name": "eto", "eval.planner": "model"}, "which is no planner"),
        ({"method.name": "mpo", "eval.models": ["model"]}, "which is a planner"),
        ({"method.name": "mpo", "plan.n": 1}, "compares the plans of a task"),
    ],
)
def test_settings_that_contradict_the_method_are_refused(run: Path, values: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        resolve(run, {}, {"eval.planner": "", **values})
