"""WKM: task and state knowledge, what is trained on it, and an evaluation with it."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from sandcli.core.run import D_INFORMED, D_WKM, Run
from sandcli.errors import Exit, UsageError
from tests.core.runs import edit, failing
from tests.helpers import Rules, accept_edit, asked, built, lines, make_run, perform, rules, state, write_rules

LESSON = "When you seek a lamp, you should look.\n1. Go to the kitchen."

SURE: Rules = [
    {"when": asked("lesson"), "replies": [LESSON]},
    {"when": asked("state"), "replies": ["I seek\na lamp."]},
    *rules(),
]


def explored(folder: Path, content: Rules) -> Path:
    """A run in which the policy has played."""
    write_rules(folder / "rules.json", content)
    root = make_run(folder / "run", method__name="wkm", explore__temperature=1)
    perform("collect", root, limit=3)
    perform("explore", root)
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return explored(tmp_path_factory.mktemp("knowledge"), SURE)


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def test_policy_writes_knowledge_of_every_step(run: Path) -> None:
    assert perform("knowledge", run).exit is Exit.DONE
    written = list(Run(run).knowledge())
    steps = {trajectory.id: len(trajectory.steps) for trajectory in Run(run).trajectories()}
    assert [each.key for each in written] == [(name, t) for name, count in steps.items() for t in range(count)]
    assert {each.text for each in written if each.step == 0} == {LESSON}
    assert {each.text for each in written if each.step} == {"I seek a lamp."}


def test_lesson_compares_the_expert_with_the_policys_worst_episode(run: Path) -> None:
    perform("explore", run, explore__n=6)
    stage = built("knowledge", run, explore__n=6)
    for unit in stage.units():
        attempt = unit.payload.attempt
        own = [each for each in Run(run).explored() if each.task == unit.payload.trajectory.task]
        if unit.payload.step:
            assert attempt is None
        else:
            assert attempt is not None and attempt.reward == min(each.reward for each in own)


def test_agent_learns_with_task_knowledge_and_the_knowledge_model_learns_to_write_it(run: Path) -> None:
    perform("knowledge", run)
    experts = list(Run(run).trajectories())
    for expert, told, taught in zip(experts, lines(run / D_INFORMED), lines(run / D_WKM), strict=True):
        assert told["instruction"] == f"{expert.instruction}\n\nThis plan may help you:\n{LESSON}"
        assert [step["action"] for step in told["steps"]] == expert.actions
        assert taught["instruction"] == expert.instruction
        assert [step["thought"] for step in taught["steps"]] == [LESSON, *["I seek a lamp."] * (len(expert.steps) - 1)]
        seen = f"{expert.steps[0].observation}\nLast action: {expert.actions[0]}"
        assert taught["steps"][0]["observation"] == seen and not taught["steps"][0]["action"]


def test_what_is_not_written_is_counted_and_ends_a_conversation(tmp_path: Path) -> None:
    content = [{"when": asked("state"), "replies": ["I seek a lamp.", ""]}, *SURE]
    root = explored(tmp_path, content)
    summary = perform("knowledge", root)
    assert summary.manifest is not None
    left_out = summary.manifest.left_out
    assert set(left_out.values()) == {"the policy wrote nothing"}
    written = {each.key for each in Run(root).knowledge()}
    for taught in lines(root / D_WKM):
        count = len(taught["steps"])
        assert all((taught["id"], t) in written for t in range(count)) and (taught["id"], count) not in written


def test_killed_in_the_middle_it_goes_on_with_what_is_missing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with failing(monkeypatch, "(House 1.)"):
        assert perform("knowledge", run, run__retries=0).exit is Exit.FAILED_UNITS
    assert state("knowledge", run).kind == "partial"
    assert perform("knowledge", run).exit is Exit.DONE
    assert len(lines(run / D_INFORMED)) == 3


def test_another_episode_makes_only_its_lesson_stale(run: Path) -> None:
    perform("knowledge", run)
    edit(run / "explored.jsonl", 1, reward=0.125)
    accept_edit("explore", run)
    assert state("knowledge", run).reasons == ['1 units made from other input, first ["fetch_1",0]']


def test_evaluation_gives_the_agent_task_knowledge_as_a_plan(run: Path) -> None:
    settings: dict[str, Any] = {"eval__models": ["base"], "eval__splits": ["seen"], "retrieval__weight": 1}
    perform("eval", run, **settings)
    episodes = list(Run(run).episodes())
    assert episodes and {each.plan.text for each in episodes if each.plan} == {"1. Go to the kitchen."}
    assert {each.steps[0].action for each in episodes} == {"go to kitchen"}
    assert state("eval", run, **settings).kind == "done"


def test_knowledge_model_belongs_to_its_method(run: Path) -> None:
    with pytest.raises(UsageError, match=r"eval\.planner is wkm, which is no planner if method\.name is eto"):
        perform("eval", run, method__name="eto")
