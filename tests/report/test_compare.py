"""Paired differences, and a warning for everything that makes numbers incomparable."""

import shlex

import pytest

from sandcli.report.compare import difference, warnings
from sandcli.report.missing import missing_parts
from sandcli.report.rows import agent_rows
from sandcli.report.scores import Evaluation
from tests.report.made_up import evaluation, score, scores


def warned(*evaluations: Evaluation) -> list[str]:
    return warnings(evaluations, agent_rows(evaluations))


def test_differences_are_over_the_tasks_in_common() -> None:
    ours = [score(1, 0.75), score(2, 0.5), score(3, 1.0)]
    theirs = [score(2, 0.25), score(1, 0.25), score(9, 1.0)]
    found = difference(ours, theirs)
    assert found is not None
    assert (found.mean, found.tasks) == (37.5, 2)
    assert (found.low, found.high) == (25.0, 50.0)


def test_equal_differences_have_no_interval() -> None:
    found = difference(scores([0.1, 0.9, 0.4]), scores([0.0, 0.8, 0.3]))
    assert found is not None
    assert list(found) == pytest.approx([10, 10, 10, 3])
    assert difference(scores([0.1]), []) is None


def test_comparable_runs_cause_no_warning() -> None:
    settings = {"env.step_limit": "0", "prompt.preamble": "abc"}
    assert not warned(
        evaluation("a", settings=settings, model=scores([0.1, 0.2]), sft=scores([0.1, 0.2])),
        evaluation("b", settings=settings, iteration=2, model=scores([0.3, 0.2])),
        evaluation("c", world="ALFWorld", settings={"env.step_limit": "30"}, model=scores([1.0])),
    )


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ("agent.max_tokens", "the token limit of a turn (agent.max_tokens)"),
        ("env.step_limit", "the step limit (env.step_limit)"),
        ("env.simplifications", "the simplifications"),
        ("env.grammar", "the games' grammar"),
        ("env.scienceworld", "the version of scienceworld"),
        ("prompt.preamble", "the preamble (agent.preamble, agent.knowledge)"),
    ],
)
def test_a_different_setting_causes_a_warning(key: str, named: str) -> None:
    runs = [
        evaluation(run, settings={key: value}, iteration=number, model=scores([0.5]))
        for number, (run, value) in enumerate([("a", "1"), ("b", "2"), ("c", "1")], 1)
    ]
    line, *own = warned(*runs)
    assert len(own) == (3 if key == "env.step_limit" else 0)
    assert all("the literature's limits are those of the task types" in line for line in own)
    assert named in line
    assert "differs: 1 in a, c; 2 in b." in line
    assert line.endswith("sand eval --run b --force")


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("0", "a: episodes end after 40 steps, as in ETO and WKM; MPO, whose evaluation prompts the paper uses"),
        ("40", "a: episodes end after 40 steps, as in ETO and WKM; MPO"),
        ("8", "a: episodes end after 8 steps, as in no published comparison; MPO"),
    ],
)
def test_warning_knows_the_step_limits_of_the_literature(limit: str, said: str) -> None:
    (line,) = warned(evaluation("a", world="ALFWorld", settings={"env.step_limit": limit}, model=scores([1.0])))
    assert line.startswith(said) and line.endswith("set env.step_limit = 30")


def test_other_worlds_have_no_step_limit_to_compare_with() -> None:
    assert not warned(evaluation("a", world="ToyWorld", settings={"env.step_limit": "8"}, model=scores([1.0])))


def test_different_tasks_and_splits_cause_warnings() -> None:
    full, half = scores([0.1, 0.2, 0.3]), [score(2, 0.4), score(8, 0.4)]
    lines = warned(evaluation("a", sft=full + scores([0.1], "unseen")), evaluation("b", model=half))
    assert len(lines) == 2
    assert "SAND, iteration 1 (b) has 2 tasks, tiny, SFT (a) has 3, 1 in common" in lines[0]
    assert lines[0].endswith("sand eval --run b --splits seen --models model")
    assert "ScienceWorld unseen: tiny, SAND, iteration 1 (b) has no task" in lines[1]
    assert lines[1].endswith("sand eval --run b --splits unseen --models model")


def test_different_tasks_of_the_same_number_cause_a_warning() -> None:
    (line,) = warned(evaluation("a", sft=[score(1, 0.1)], model=[score(2, 0.1)]))
    assert "has 1 task," in line and "0 in common" in line


def test_failed_and_accepted_episodes_cause_warnings() -> None:
    failed, accepted = warned(
        evaluation("a", failed=3, accepted=("agent.max_tokens: was 512, is 64",), model=scores([0.5]))
    )
    assert failed.startswith("a: 3 episodes failed") and failed.endswith("sand eval --run a")
    assert "was 512, is 64" in accepted and accepted.endswith("--force")


def test_expert_data_of_our_own_cause_a_warning_in_the_papers_worlds() -> None:
    said = "a: D_exp is our own, not the paper's ETO data: the world's expert made 7 of its trajectories. "
    assert any(line.startswith(said) for line in warned(evaluation("a", own_data=7, world="ALFWorld")))
    assert not any("D_exp" in line for line in warned(evaluation("a", world="ALFWorld")))
    assert not any("D_exp" in line for line in warned(evaluation("a", own_data=7, world="toyworld")))


def test_test_tasks_in_the_training_data_cause_a_warning() -> None:
    trained = frozenset({"boil_0", "boil_2", "boil_77"})
    model = scores([0.1, 0.2, 0.3]) + scores([0.1], "train")
    (line,) = warned(evaluation("a", trained_tasks=trained, model=model, sft=model))
    assert line.startswith("a: 2 of the 3 ScienceWorld seen tasks are in its expert.jsonl")
    assert not warned(evaluation("a", trained_tasks=trained, base_model=model))


def test_commands_quote_the_names_of_runs() -> None:
    run = "my runs/it 1"
    first = evaluation(
        run, settings={"env.x": "1"}, failed=1, accepted=("x",), retrained=("sft",), sft=scores([0.5]), limit=3
    )
    second = evaluation(run.replace("1", "2"), settings={"env.x": "2"}, iteration=2, model=scores([0.5, 1.0]))
    rows = agent_rows([first, second])
    lines = [*warnings([second, first], rows), *missing_parts([first, second], rows)]
    commands = [shlex.split(line[line.index("sand ") :]) for line in lines if "sand eval" in line]
    assert len(commands) >= 5
    assert {command[3] for command in commands} <= {run, run.replace("1", "2")}


def test_seeds_may_differ_but_temperatures_may_not() -> None:
    greedy, sampled = {"eval.temperature": "0.0"}, {"eval.temperature": "0.7", "run.seed": "1"}
    other = {"eval.temperature": "0.7", "run.seed": "2"}
    assert not warned(
        evaluation("a", settings=sampled, model=scores([1.0])), evaluation("b", settings=other, sft=scores([1.0]))
    )
    (found,) = warned(
        evaluation("a", settings=greedy, model=scores([1.0])), evaluation("b", settings=other, sft=scores([1.0]))
    )
    assert "the temperature of the agents (eval.temperature) differs: 0.0 in a; 0.7 in b" in found
