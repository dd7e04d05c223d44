"""The table of stages, their order in a run, and Algorithm 1."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sandcli.core.artifact import StageName
from sandcli.core.run import ARTIFACTS, Run
from sandcli.method_settings import MethodSettings, PairsSettings
from sandcli.pipeline import METHODS, TABLE, algorithm_1, next_command, next_root, row, stages_of
from sandcli.settings import Settings
from tests.helpers import context, make_run


def test_table_agrees_with_the_run_directory() -> None:
    assert [line.name for line in TABLE] == list(ARTIFACTS)
    for line in TABLE:
        written = ARTIFACTS[line.name]
        assert line.writes == (written.name, *written.derived)


def test_stage_reads_only_what_an_earlier_one_writes() -> None:
    made: set[str] = set()
    for line in TABLE:
        assert set(line.reads) <= made, line.name
        made |= set(line.writes)


def test_algorithm_1_runs_the_stages_of_every_iteration_in_order() -> None:
    done: list[tuple[str, str]] = []

    async def do(stage: StageName, run: Run, /) -> None:
        done.append((run.root.name, stage))

    asyncio.run(algorithm_1(Run("it1"), 2, do, lambda run: Run(next_root(run.root))))
    every = ["sample", "rollout", "critique", "synthesize", "train", "eval"]
    first, second = [("it1", stage) for stage in every], [("it2", stage) for stage in every]
    assert done == [("it1", "collect"), ("it1", "sft"), *first, *second]


@pytest.mark.parametrize("method", METHODS)
def test_method_runs_the_stages_that_belong_to_it(method: Any) -> None:
    done: list[StageName] = []

    async def do(stage: StageName, run: Run, /) -> None:
        done.append(stage)

    asyncio.run(METHODS[method](Run("it1"), 1, do, lambda run: run))
    settings = Settings(method=MethodSettings(name=method))
    if method != "eto":  # it names stages of which it needs only some
        assert done == stages_of(settings)
    assert [stage for stage in done if row(stage).skip(settings) is None] == stages_of(settings)


def test_eto_compares_the_expert_with_episodes_or_with_rollouts() -> None:
    explored, rolled = (
        stages_of(Settings(method=MethodSettings(name="eto"), pairs=PairsSettings(source=source)))
        for source in ("explored", "rollouts")
    )
    assert explored == ["collect", "sft", "explore", "pairs", "prefer", "eval"]
    assert rolled == ["collect", "sft", "sample", "rollout", "pairs", "prefer", "eval"]


@pytest.mark.parametrize(
    ("root", "after"), [("runs/it1", "runs/it2"), ("runs/it9", "runs/it10"), ("runs/demo", "runs/demo-it2"), ("7", "8")]
)
def test_next_run_is_numbered(root: str, after: str) -> None:
    assert next_root(Path(root)) == Path(after)


@pytest.mark.parametrize(
    ("settings", "chain"),
    [
        ({}, "sft sample rollout critique synthesize train eval"),
        ({"model.policy": "../it1/model"}, "sample rollout critique synthesize train eval"),
        ({"method.without": "critique"}, "sft sample synthesize train eval"),
        ({"method.without": "sampling"}, "sft synthesize train eval"),
        ({"method.without": "deliberations"}, "sft synthesize train eval"),
        (
            {"method.without": "deliberations", "method.switch": "better"},
            "sft sample rollout synthesize train eval",
        ),
        ({"method.name": "rft"}, "sft explore train eval"),
        ({"method.name": "rft", "model.policy": "../it1/model"}, "explore train eval"),
        ({"method.name": "wkm"}, "sft explore knowledge wkm train eval"),
        ({"method.name": "knowagent"}, "explore train eval"),
        ({"method.name": "knowagent", "model.policy": ""}, "sft explore train eval"),
    ],
)
def test_next_command_is_the_next_stage_of_the_variant(tmp_path: Path, settings: dict[str, str], chain: str) -> None:
    loaded = context(make_run(tmp_path / "run", **settings))
    (tmp_path / "run" / "model").mkdir()
    stages = stages_of(loaded.settings)
    found, command = [], next_command("collect", loaded.run, stages)
    while command.startswith("sand ") and "init" not in command:
        found.append(command.split()[1])
        command = next_command(found[-1], loaded.run, stages)  # type: ignore[arg-type]
    assert " ".join(found) == chain
    assert command == f"sand init --run {tmp_path / 'run-it2'} --from {tmp_path / 'run'}"


@pytest.mark.parametrize(
    ("made", "stage"),
    [((), "collect"), (("expert.jsonl", "sft"), "sample"), (("expert.jsonl", "sft", "samples.jsonl"), "rollout")],
)
def test_evaluation_before_the_training_is_followed_by_the_stage_that_is_missing(
    tmp_path: Path, made: tuple[str, ...], stage: str
) -> None:
    run = context(make_run(tmp_path / "run")).run
    for name in (*made, "eval.jsonl"):
        (run.root / name).touch()
    assert next_command("eval", run, stages_of(Settings())) == f"sand {stage} --run {run.root}"


@pytest.mark.parametrize("name", ["x/expert", "x/sft/seed1"])
def test_last_stage_of_a_run_in_an_experiment_is_followed_by_the_others_runs(tmp_path: Path, name: str) -> None:
    run = Run(tmp_path / name)
    run.root.mkdir(parents=True)
    (tmp_path / "x" / "plan.toml").touch()
    (run.root / "model").mkdir()  # a next iteration would take the place of the next seed
    assert next_command("sft", run, ["sft", "eval"]) == f"sand eval --run {run.root}"
    assert next_command("eval", run, ["sft", "eval"]) == f"sand experiment {tmp_path}/x/plan.toml --run {tmp_path}/x"
