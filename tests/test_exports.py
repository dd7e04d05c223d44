"""Exported rows hold what `sand train` learns from, in the forms of other trainers."""

import json
from pathlib import Path
from typing import Any

import pytest

import sandcli
from sandcli.agent.conversation import training_messages
from sandcli.errors import PrerequisiteError, UsageError
from sandcli.records import Trajectory
from tests.helpers import context, lines, make_run, perform, sand


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with D_delib."""
    root = make_run(tmp_path_factory.mktemp("export") / "run", env__tasks="fetch,carry")
    for stage in ("collect", "sample", "rollout", "critique", "synthesize", "pairs"):
        perform(stage, root, pairs__source="rollouts")
    return root


def trajectories(root: Path, name: str = "deliberations") -> list[dict[str, Any]]:
    return lines(root / f"{name}.jsonl")


def exported(root: Path, folder: Path, **options: Any) -> list[dict[str, Any]]:
    file = folder / "rows.jsonl"
    count = sandcli.export(root, file, **options)
    rows = lines(file)
    assert len(rows) == count
    return rows


def test_messages_are_those_that_are_trained_on(made: Path, tmp_path: Path) -> None:
    rows = exported(made, tmp_path)
    learned = [
        training_messages(context(made).preamble, trajectory) for trajectory in sandcli.Run(made).deliberations()
    ]
    assert [[(m["role"], m["content"]) for m in row["messages"]] for row in rows] == learned
    assert [row["id"] for row in rows] == [each["id"] for each in trajectories(made)]


def test_every_turn_is_a_completion_of_all_before_it(made: Path, tmp_path: Path) -> None:
    rows = exported(made, tmp_path, form="prompt-completion")
    whole = {row["id"]: row["messages"] for row in exported(made, tmp_path / "whole")}
    assert len(rows) == sum(len(each["steps"]) for each in trajectories(made))
    for row in rows:
        turn = len(row["prompt"])
        assert row["prompt"] + row["completion"] == whole[row["id"]][: turn + 1]
        assert row["completion"][0]["role"] == "assistant"
    assert [row["step"] for row in rows[:4]] == [0, 1, 2, 0]


def test_sharegpt_has_its_own_names(made: Path, tmp_path: Path) -> None:
    row = exported(made, tmp_path, form="sharegpt")[0]
    assert [said["from"] for said in row["conversations"][:4]] == ["system", "human", "gpt", "human"]
    assert row["conversations"][-1]["from"] == "gpt"


@pytest.mark.parametrize("form", ["messages", "prompt-completion"])
def test_only_deliberated(made: Path, tmp_path: Path, form: str) -> None:
    steps = [(each["id"], t) for each in trajectories(made) for t, s in enumerate(each["steps"]) if s["deliberated"]]
    rows = exported(made, tmp_path, form=form, only_deliberated=True)
    wanted = steps if form == "prompt-completion" else list(dict.fromkeys((name, None) for name, _ in steps))
    assert [(row["id"], row.get("step")) for row in rows] == wanted
    assert len(wanted) > 0


def test_min_reward(made: Path, tmp_path: Path) -> None:
    rewards = {each["id"]: each["reward"] for each in trajectories(made, "expert")}
    rows = exported(made, tmp_path, data="expert", min_reward=1.0)
    assert {row["id"] for row in rows} == {name for name, reward in rewards.items() if reward >= 1}


def test_pairs_have_the_columns_of_trls_preference_rows(made: Path, tmp_path: Path) -> None:
    rows = exported(made, tmp_path, data="pairs")
    pairs = list(sandcli.Run(made).pairs())
    assert [(row["id"], *row["place"]) for row in rows] == [pair.key for pair in pairs]
    whole = {each.id: training_messages(context(made).preamble, each) for each in sandcli.Run(made).trajectories()}
    for row in rows:
        said = [(message["role"], message["content"]) for message in row["prompt"] + row["chosen"]]
        assert said == whole[row["id"]]
        assert row["rejected"][0]["role"] == row["rejected"][-1]["role"] == "assistant"


def test_parquet_holds_the_same(made: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    sandcli.export(made, tmp_path / "rows.parquet", form="prompt-completion")
    table = load_dataset("parquet", data_files=str(tmp_path / "rows.parquet"), cache_dir=str(tmp_path), split="train")
    assert list(table) == exported(made, tmp_path, form="prompt-completion")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"data": "thoughts"}, "there is no data 'thoughts'"),
        ({"form": "alpaca"}, "there is no form 'alpaca'"),
        ({"form": "preference"}, "deliberations cannot be exported in the form preference"),
        ({"data": "pairs", "form": "messages"}, "pairs cannot be exported in the form messages"),
        ({"data": "pairs", "only_deliberated": True}, "pairs do not say"),
        ({"data": "pairs", "min_reward": 2.0}, "no row of pairs is left"),
        ({"min_reward": 2.0}, "no row of deliberations is left"),
        ({"data": "expert", "only_deliberated": True}, "no row of expert is left"),
    ],
)
def test_what_cannot_be_exported_is_refused(made: Path, tmp_path: Path, options: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        sandcli.export(made, tmp_path / "rows.jsonl", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "what"), [("", "is a folder"), ("taken.jsonl", "already a file"), ("rows.csv", "no name of a file")]
)
def test_a_bad_file_name_is_refused(made: Path, tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / "taken.jsonl").touch()
    with pytest.raises(UsageError, match=what):
        sandcli.export(made, tmp_path / name)


def test_what_is_not_made_is_named(made: Path, tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match=r"explored\.jsonl is missing"):
        sandcli.export(made, tmp_path / "rows.jsonl", data="rft")


@pytest.mark.slow
def test_the_command_says_what_it_wrote(made: Path, tmp_path: Path) -> None:
    ran = sand("export", tmp_path / "rows.jsonl", "--run", made, "--form", "sharegpt")
    assert ran.returncode == 0, ran.stderr
    assert f"wrote {len(trajectories(made))} rows" in ran.stdout
    assert json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[0])["conversations"]


def test_deliberations_are_trajectories(made: Path) -> None:
    assert all(isinstance(each, Trajectory) for each in sandcli.Run(made).deliberations())


def test_pairs_of_plans_hold_what_the_planner_was_asked_and_no_preamble(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run", method__name="mpo", plan__n=4, explore__n=2, model__policy="x")
    perform("collect", root, limit=3)
    for stage in ("plan", "explore", "pairs"):
        perform(stage, root)
    for row in exported(root, tmp_path, data="pairs"):
        assert [message["role"] for message in row["prompt"]].count("system") == 1
        assert "Write a plan" in row["prompt"][0]["content"]
