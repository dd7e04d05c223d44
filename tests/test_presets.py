"""Presets hold the paper's settings."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sandcli.cli import app
from sandcli.config import resolve
from sandcli.errors import UsageError
from sandcli.new_run import assigned, start_run
from sandcli.presets import PRESETS


@pytest.mark.parametrize("name", [name for name in PRESETS if "smollm2" not in name])
def test_presets_are_the_papers_settings(tmp_path: Path, name: str) -> None:
    start_run(tmp_path, None, {}, name)
    settings = resolve(tmp_path, {}, {}).settings
    assert (settings.sample.n, settings.sample.temperature, settings.rollout.temperature) == (5, 1.0, 1.0)
    for training in (settings.sft, settings.train):
        assert (training.method, training.learning_rate, training.epochs, training.batch_size) == ("full", 1e-5, 3, 64)
    assert settings.env.name == name.partition("-")[0]
    assert settings.method.switch == ("shorter" if settings.env.name == "alfworld" else "never")
    assert settings.model.base in ("meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen2.5-7B-Instruct")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_do_not_trust_code(name: str) -> None:
    assert "model.trust_code" not in PRESETS[name]


@pytest.mark.parametrize("name", PRESETS)
def test_papers_presets_ask_for_the_papers_data(tmp_path: Path, name: str) -> None:
    ran = CliRunner().invoke(app, ["init", "--run", str(tmp_path / "run"), "--preset", name])
    assert ran.exit_code == 0, ran.output
    asked = "the paper's D_exp is the ETO data: pass it to sand collect with --from; without it, D_exp is our own"
    assert (asked in " ".join(ran.output.split())) == ("smollm2" not in name)


def test_setting_overrides_the_preset(tmp_path: Path) -> None:
    start_run(tmp_path, None, assigned(["sft.batch_size=8"]), "alfworld-qwen2.5-7b")
    assert resolve(tmp_path, {}, {}).settings.sft.batch_size == 8


def test_unknown_preset_suggests_another(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        start_run(tmp_path / "run", None, {}, "alfworld-qwen2.5")
    assert "did you mean alfworld-qwen2.5-7b?" in caught.value.fix
    assert not (tmp_path / "run").exists()
