"""Experiments without training: what is refused before anything is made, and what a run must share with the others."""

import asyncio
import json
from pathlib import Path

import pytest

from sandcli.cli.output import command_after
from sandcli.core.run import Run
from sandcli.errors import PrerequisiteError, UsageError
from sandcli.experiments import Experiment
from sandcli.perform import context_of
from sandcli.status import status_of
from tests.helpers import accept_edit, contents, lines, make_run, perform, write_rules

PLAN = """
seeds = [3, 4]
limit = 2
tasks = 1

[settings]
env = {{ name = "tests.toyworld:ToyWorld", tasks = ["fetch"], simplifications = "none" }}
engine = {{ kind = "scripted", script = "{rules}" }}
collect.thoughts = "none"
eval.splits = ["seen"]
run.workers = 1
sample.n = 2

[arms.base]
eval.models = ["base"]

[arms.again]
eval.models = ["base"]
"""


def written(folder: Path, more: str = "") -> Path:
    """A plan whose arms train nothing, and what else it says."""
    rules = write_rules(folder / "rules.json")
    path = folder / "plan.toml"
    path.write_text(PLAN.format(rules=rules) + more)
    return path


def experiment(path: Path, only: int | None = None) -> Experiment:
    return Experiment(path.parent / "x", path, None, only, {})


def make(path: Path) -> None:
    asyncio.run(experiment(path).make())


def test_only_one_of_the_seeds(tmp_path: Path) -> None:
    path = written(tmp_path, "[arms.sft]\neval.models = ['sft']")
    outline = experiment(path, only=4).outline()
    assert [line.partition(":")[0] for line in outline] == [f"{tmp_path}/x/sft/seed4"]
    with pytest.raises(UsageError, match="5 is not one of the seeds"):
        experiment(path, only=5)


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ("[arms.last]\ntrain.epoch = 2", r"unknown key arms\.last\.train\.epoch"),
        ("[arms.last]\ntrain.epochs = 0", r"arms\.last: train\.epochs = 0"),
        ("[arms.last]\nupdates_of = 'base'", r"arms\.last: updates_of names base, which trains no model"),
        ("[arms.last]\nmethod.name = 'rft'\nmethod.without = 'critique'", r"arms\.last: .*method\.name is rft"),
    ],
)
def test_wrong_arm_is_refused_before_anything_is_made(tmp_path: Path, more: str, error: str) -> None:
    with pytest.raises(UsageError, match=error):
        make(written(tmp_path, more))
    assert not (tmp_path / "x").exists()


def test_panel_that_cannot_be_played_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_text(path.read_text().replace("tasks = 1\n", 'panel = "scienceworld-short"\n', 1))
    with pytest.raises(UsageError, match="the panel is of the world 'scienceworld'"):
        make(path)
    assert not (tmp_path / "x").exists()


def test_control_on_alfworld_switches_as_sand_does(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text('settings.env.name = "alfworld"\n[arms.control]\nmethod.without = "deliberations"')
    (line,) = experiment(path).outline()
    assert line.endswith(": collect sft sample rollout synthesize train eval")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """The plan of a finished experiment."""
    path = written(tmp_path)
    make(path)
    return path


def test_runs_are_made_from_one_d_exp(made: Path) -> None:
    root = made.parent / "x"
    assert {path.parent.parent.name for path in root.glob("*/*/eval.jsonl")} == {"base", "again"}
    assert len({path.read_bytes() for path in root.rglob("expert.jsonl")}) == 1
    source = json.loads((root / "base/seed3/manifests/collect.json").read_text())["identity"]["settings"]["source"]
    assert source == f"run {root}/expert: expert.jsonl"


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("sample.n = 2", "sample.n = 3", r"has sample\.n = 2, the plan .* has 3"),
        ("sample.n = 2\n", "", r"has sample\.n = 2, the plan .* has 5"),
        ("run.workers = 1", "run.workers = 1\nsample.temperature = 0.5", r"has sample\.temperature = 1.0, the plan"),
    ],
)
def test_changed_plan_is_refused(made: Path, old: str, new: str, error: str) -> None:
    before = contents(made.parent / "x")
    made.write_text(made.read_text().replace(old, new))
    with pytest.raises(UsageError, match=error):
        make(made)
    assert contents(made.parent / "x") == before


def test_status_and_next_command_propose_nothing_that_the_plan_does_not_make(made: Path) -> None:
    root = made.parent / "x"
    for name, stages in (("expert", ["collect"]), ("base/seed3", ["collect", "eval"])):
        assert [(line.stage, line.state) for line in status_of(context_of(Run(root / name), {}))] == [
            (stage, "done") for stage in stages
        ]
    assert command_after("eval", root / "base/seed3") == f"sand experiment {root}/plan.toml --run {root}"


def test_new_arm_joins_the_others(made: Path) -> None:
    made.write_text(made.read_text() + "[arms.new]\neval.models = ['base']")
    make(made)
    assert (made.parent / "x/new/seed3/eval.jsonl").exists()


def test_larger_limit_is_refused_before_anything_is_collected(made: Path) -> None:
    before = contents(made.parent / "x" / "expert")
    made.write_text(made.read_text().replace("limit = 2", "limit = 3"))
    with pytest.raises(UsageError, match=r"its D_exp is not the one of .*seed3"):
        make(made)
    assert contents(made.parent / "x" / "expert") == before
    made.write_text(made.read_text().replace("limit = 3", "limit = 2"))
    make(made)


def test_run_is_no_folder_for_an_experiment(tmp_path: Path) -> None:
    path = written(tmp_path)
    make_run(tmp_path / "x")
    with pytest.raises(UsageError, match="x is a run, not the folder of an experiment"):
        make(path)


@pytest.mark.parametrize("seeds", [1001, 2**70])
def test_too_many_seeds_are_refused(tmp_path: Path, seeds: int) -> None:
    with pytest.raises(UsageError, match=f"--seeds {seeds} "):
        Experiment(tmp_path / "x", written(tmp_path), seeds, None, {})


def test_seed_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no run with the seed 4"):
        experiment(written(tmp_path), only=4)


def test_runs_with_another_d_exp_are_refused(made: Path) -> None:
    expert = made.parent / "x" / "expert"
    perform("collect", expert, limit=3)
    with pytest.raises(UsageError, match=r"seed3/expert\.jsonl is not .*expert/expert\.jsonl: it was collected again"):
        make(made)


def test_edited_d_exp_of_one_run_is_refused(made: Path) -> None:
    path = made.parent / "x/again/seed3/expert.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:1]))
    accept_edit("collect", path.parent)
    with pytest.raises(UsageError, match="again/seed3/expert"):
        make(made)


def test_folder_of_an_experiment_is_no_run(made: Path) -> None:
    with pytest.raises(PrerequisiteError) as caught:
        Run(made.parent / "x").must_exist()
    assert (
        caught.value.fix
        == f"it is the folder of an experiment: name one of its runs, such as {made.parent}/x/ARM/seed0"
    )


def test_file_is_no_folder_for_an_experiment(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(UsageError, match="x is not a folder"):
        make(written(tmp_path))


def test_variables_do_not_override_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAND_EVAL_SPLITS", "unseen")
    make(written(tmp_path))
    assert {episode["split"] for episode in lines(tmp_path / "x/base/seed3/eval.jsonl")} == {"seen"}
