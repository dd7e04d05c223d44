"""Presets hold the paper's settings, and what a run is made of follows from its settings."""

import asyncio
from pathlib import Path

import pytest

from sandcli.config import resolve
from sandcli.core.stage import Options
from sandcli.errors import UsageError
from sandcli.new_run import assigned, start_run
from sandcli.perform import perform
from sandcli.pipeline import next_command
from sandcli.presets import PRESETS
from tests.helpers import context, make_run


@pytest.mark.parametrize("name", [name for name in PRESETS if "smollm2" not in name])
def test_presets_are_the_papers_settings(tmp_path: Path, name: str) -> None:
    start_run(tmp_path, None, {}, name)
    settings = resolve(tmp_path, {}, {}).settings
    assert (settings.sample.n, settings.sample.temperature, settings.rollout.temperature) == (5, 1.0, 1.0)
    for training in (settings.sft, settings.train):
        assert (training.method, training.learning_rate, training.epochs, training.batch_size) == ("full", 1e-5, 3, 64)
    assert settings.env.name == name.partition("-")[0]
    assert settings.method.switch == ("better" if settings.env.name == "alfworld" else "never")
    assert settings.model.base in ("meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen2.5-7B-Instruct")


def test_what_is_set_comes_before_the_preset(tmp_path: Path) -> None:
    start_run(tmp_path, None, assigned(["sft.batch_size=8"]), "alfworld-qwen2.5-7b")
    assert resolve(tmp_path, {}, {}).settings.sft.batch_size == 8


def test_an_iteration_takes_no_preset(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--from takes its settings from"):
        start_run(tmp_path / "it2", make_run(tmp_path / "it1"), {}, "alfworld-qwen2.5-7b")
    assert not (tmp_path / "it2").exists()


def test_a_setting_has_one_value(tmp_path: Path) -> None:
    start_run(tmp_path / "same", None, assigned(["method.without=critique", "method.without=critique"]))
    with pytest.raises(UsageError, match=r"method\.without is set twice, to sampling and critique"):
        start_run(tmp_path / "run", None, assigned(["method.without=sampling", "method.without=critique"]))


def test_an_unknown_preset_names_the_others(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        start_run(tmp_path / "run", None, {}, "alfworld-qwen2.5")
    assert "did you mean alfworld-qwen2.5-7b?" in caught.value.fix
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("preset", [None, "alfworld-llama3.1-8b"])
@pytest.mark.parametrize(("settings", "switch"), [([], "better"), (["method.without=critique"], "never")])
def test_alfworld_switches_as_the_paper_does(
    tmp_path: Path, preset: str | None, settings: list[str], switch: str
) -> None:
    start_run(tmp_path, None, assigned(["env.name=alfworld", *settings]), preset)
    assert resolve(tmp_path, {}, {}).settings.method.switch == switch


@pytest.mark.parametrize(
    ("settings", "chain"),
    [
        ({}, "sft sample rollout critique synthesize train eval"),
        ({"model.policy": "../it1/model"}, "sample rollout critique synthesize train eval"),
        ({"method.without": "critique"}, "sft sample synthesize train eval"),
        ({"method.without": "sampling"}, "sft synthesize train eval"),
    ],
)
def test_every_stage_leads_to_the_next_of_its_run(tmp_path: Path, settings: dict[str, str], chain: str) -> None:
    loaded = context(make_run(tmp_path / "run", **settings))
    found, command = [], next_command("collect", loaded.run, loaded.settings)
    while command.startswith("sand ") and "init" not in command:
        found.append(command.split()[1])
        command = next_command(found[-1], loaded.run, loaded.settings)  # type: ignore[arg-type]
    assert " ".join(found) == chain
    assert command == f"sand init --run {tmp_path / 'run-it2'} --from {tmp_path / 'run'}"


def test_a_run_that_starts_from_a_policy_makes_no_sft(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", model__policy="../it1/model", engine__kind="transformers")
    with pytest.raises(UsageError, match=r"starts from the policy \.\./it1/model"):
        asyncio.run(perform("sft", context(run), Options()))
    with pytest.raises(UsageError, match=r"starts from the policy \.\./it1/model"):
        asyncio.run(perform("eval", context(run, eval__models=["sft"]), Options()))
