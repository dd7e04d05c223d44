"""The plan of an experiment: what a file says, and which runs follow from it."""

from pathlib import Path

import pytest

from sandcli.config import resolve
from sandcli.core.run import Run
from sandcli.errors import PrerequisiteError, UsageError
from sandcli.pipeline import stages_of
from sandcli.plans import expert_settings, planned_runs, read_plan, runs_of, stages_in, stages_needed
from sandcli.settings import Settings

PLAN = """
seeds = [3, 4]
limit = 5
[settings]
env.tasks = ["fetch"]
train.epochs = 2
[arms.base]
eval.models = ["base"]
[arms.sft]
eval.models = ["sft"]
[arms.sand]
[arms.low]
updates_of = "sand"
train.epochs = 1
"""


def written(folder: Path, text: str = PLAN) -> Path:
    path = folder / "plan.toml"
    path.write_text(text)
    return path


def test_runs_are_all_arms_of_a_seed_then_the_next(tmp_path: Path) -> None:
    plan = read_plan(written(tmp_path))
    found = [run.folder for run in planned_runs(plan, plan.seeds)]
    first = ["base/seed3", "sft/seed3", "sand/seed3", "low/seed3"]
    assert found == [*first, "sft/seed4", "sand/seed4", "low/seed4"]


def test_settings_of_an_arm_override_the_plans(tmp_path: Path) -> None:
    plan = read_plan(written(tmp_path))
    runs = {run.folder: run for run in planned_runs(plan, plan.seeds)}
    low = runs["low/seed4"]
    assert low.settings == {"env.tasks": ["fetch"], "train.epochs": 1, "run.seed": 4, "run.label": "low"}
    assert (low.updates_of, runs["sand/seed4"].settings["train.epochs"]) == ("sand", 2)


def test_settings_override_the_preset(tmp_path: Path) -> None:
    text = 'preset = "scienceworld-smollm2-135m"\n[settings]\ntrain.batch_size = 2\n[arms.sand]'
    plan = read_plan(written(tmp_path, text))
    (run,) = planned_runs(plan, plan.seeds)
    assert (run.settings["train.batch_size"], run.settings["sft.batch_size"]) == (2, 4)
    assert (expert_settings(plan)["collect.thoughts"], "collect.thoughts" in run.settings) == ("none", False)


def test_panel_is_a_setting_of_every_run(tmp_path: Path) -> None:
    plan = read_plan(written(tmp_path, 'panel = "some"\n[arms.sand]\n'))
    (run,) = planned_runs(plan, plan.seeds)
    assert (run.seed, run.settings["eval.panel"]) == (0, "some")


@pytest.mark.parametrize(
    ("settings", "stages"),
    [
        ({"eval.models": ["base"]}, ["collect", "eval"]),
        ({"eval.models": ["base", "sft"]}, ["collect", "sft", "eval"]),
        ({"method.without": "critique"}, ["collect", "sft", "sample", "synthesize", "train", "eval"]),
        ({"eval.models": ["sft", "model"], "model.policy": "x"}, ["collect", "sample", "rollout", "critique"]),
    ],
)
def test_stages_are_those_that_make_what_is_evaluated(
    tmp_path: Path, settings: dict[str, list[str]], stages: list[str]
) -> None:
    assert stages_needed(resolve(tmp_path, {}, settings).settings)[: len(stages)] == stages


def test_world_knowledge_model_is_made_for_whoever_is_told_by_it(tmp_path: Path) -> None:
    settings = resolve(tmp_path, {}, {"method.name": "wkm", "eval.models": ["sft"], "eval.planner": "wkm"}).settings
    assert stages_needed(settings) == ["collect", "sft", "explore", "knowledge", "wkm", "eval"]


def test_run_of_an_experiment_consists_of_what_the_plan_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sft = resolve(tmp_path, {}, {"eval.models": ["sft"]}).settings
    seed = tmp_path / "sft" / "seed3"
    seed.mkdir(parents=True)
    assert "sample" in stages_in(Run(seed), sft)  # elsewhere its own eval.models does not end a run
    written(tmp_path)
    assert "sample" in stages_in(Run(tmp_path / "sft"), sft) and "sample" in stages_in(Run(tmp_path / "runs/it1"), sft)
    assert stages_in(Run(seed), sft) == ["collect", "sft", "eval"]
    monkeypatch.chdir(seed)
    assert stages_in(Run(""), sft) == ["collect", "sft", "eval"]
    assert stages_in(Run(tmp_path / "expert"), Settings()) == ["collect"]
    assert stages_in(Run(tmp_path / "sand" / "seed3"), Settings()) == stages_of(Settings())


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "missing required field `arms`"),
        ("[arms]", "length >= 1"),
        ("seeds = []\n[arms.a]", "length >= 1"),
        ("seeds = [-1]\n[arms.a]", ">= 0"),
        ("seeds = [0, 0]\n[arms.a]", "a seed is listed twice in [0, 0]"),
        ("seeds = [18446744073709551616]\n[arms.a]", "<= 9223372036854775807"),
        ("[arms.a]\ntrain.epochs = 0", "arms.a: train.epochs = 0: Expected `int` >= 1"),
        ("[settings]\ntrain.epochs = 0\n[arms.a]", "settings: train.epochs = 0: Expected `int` >= 1"),
        ("limit = 0\n[arms.a]", ">= 1"),
        ("arms", "Expected '='"),
        ('[arms.a]\nupdates_of = "b"\n[arms.b]', "arms.a: updates_of names 'b', which is not an earlier arm"),
        ('[arms.a]\ncollect.thoughts = "none"', "arms.a: all arms share one D_exp"),
        ('[arms."a/b"]', "matching regex"),
        ("[arms.'']", "matching regex"),
        ("[arms.a]\nrun.seed = 7", "arms.a: run.seed is the plan's to set"),
        ("[arms.a]\neval.panel = 'x'", "arms.a: eval.panel is the plan's to set"),
        ("[arms.expert]", "'expert' cannot be the name of an arm"),
        ('tasks = 2\npanel = "p"\n[arms.a]', "it has tasks and a panel"),
    ],
)
def test_error_names_what_is_wrong_with_a_plan(tmp_path: Path, text: str, error: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        read_plan(path)
    assert error in caught.value.what and str(path) in caught.value.what


@pytest.mark.parametrize(
    ("text", "key", "right"),
    [
        ("seed = 1\n[arms.a]", "seed", "seeds"),
        ("[arms.a]\nmethod.withot = 'critique'", "arms.a.method.withot", "arms.a.method.without"),
        ("[arms.a]\nupdates-of = 'b'", "arms.a.updates-of", "arms.a.updates_of"),
        ("[settings]\ntrain.epoch = 1\n[arms.a]", "settings.train.epoch", "settings.train.epochs"),
        ("[settings]\nupdates_of = 'a'\n[arms.a]", "settings.updates_of", ""),
        ("[arms.a]\nzzz.qqq = 1", "arms.a.zzz.qqq", ""),
    ],
)
def test_unknown_key_is_named_as_the_plan_has_it(tmp_path: Path, text: str, key: str, right: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        read_plan(path)
    assert caught.value.what == f"{path}: unknown key {key}"
    assert caught.value.fix == (f"did you mean {right}?" if right else "see docs/experiments.md")


def test_folder_is_no_plan(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        read_plan(tmp_path)


def test_missing_plan(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match="there is no plan"):
        read_plan(tmp_path / "plan.toml")


def test_runs_of_an_experiment_are_the_evaluated_ones_in_order(tmp_path: Path) -> None:
    written(tmp_path)
    for name in ("sand/seed10", "sand/seed9", "base/seed9", "low/seed9"):
        (tmp_path / name).mkdir(parents=True)
        if name != "low/seed9":
            (tmp_path / name / "eval.jsonl").touch()
    assert runs_of(tmp_path) == [tmp_path / name for name in ("base/seed9", "sand/seed9", "sand/seed10")]


def test_runs_of_an_arm_are_its_evaluated_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path)
    for name in ("sand/seed10", "sand/seed9", "sand/seed11", "low/seed9"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("sand/seed10", "sand/seed9"):
        (tmp_path / name / "eval.jsonl").touch()
    assert runs_of(tmp_path / "sand") == [tmp_path / "sand" / name for name in ("seed9", "seed10")]
    monkeypatch.chdir(tmp_path / "low")
    with pytest.raises(PrerequisiteError, match="has no evaluated run") as caught:
        runs_of(Path())
    assert caught.value.fix == "sand experiment ../plan.toml --run .."
    (tmp_path / "plan.toml").unlink()
    with pytest.raises(PrerequisiteError, match="has no evaluated run") as caught:
        runs_of(tmp_path / "low")
    assert caught.value.fix == f"sand eval --run {tmp_path}/low/seed9"


def test_runs_of_a_run_are_the_run(tmp_path: Path) -> None:
    assert runs_of(tmp_path) == [tmp_path]


def test_run_with_a_plan_is_a_run(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "sand.toml").touch()
    assert runs_of(tmp_path) == [tmp_path]


def test_experiment_without_an_evaluated_run(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(PrerequisiteError, match="has no evaluated run"):
        runs_of(tmp_path)
