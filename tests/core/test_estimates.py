"""Estimates for dry runs come from earlier runs; unreadable entries are skipped."""

from pathlib import Path

import pytest

from sandcli import iterate
from sandcli.core import estimates
from sandcli.core.manifest import Spent
from sandcli.core.stage import Options
from sandcli.engines.base import Model
from sandcli.errors import Exit, UsageError
from tests.core.damage import DAMAGE
from tests.core.runs import LIMIT
from tests.helpers import built, make_run, perform


@pytest.mark.slow
def test_damaged_history_stops_no_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    history = tmp_path / "cache" / "sand" / "history.jsonl"
    root = make_run(tmp_path / "run", sample__n=2)
    perform("collect", root, limit=LIMIT)
    for damage in DAMAGE:
        if not history.is_file():
            history.rmdir() if history.is_dir() else None
            perform("sample", root, limit=LIMIT, options=Options(force=True))
        damage(history)
        told = perform("sample", root, limit=LIMIT, options=Options(force=True, dry_run=True)).message
        assert told.startswith("sample: missing; 0 units recorded, 12 to do")
        assert perform("sample", root, limit=LIMIT, options=Options(force=True)).exit is Exit.DONE, damage


@pytest.fixture
def planned(tmp_path: Path, words: Model, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with 2 trajectories, on a machine that has done nothing yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = make_run(tmp_path / "run", sample__n=2, model__base=str(words.folder), model__policy=str(words.folder))
    perform("collect", root, limit=2)
    return root


def told(root: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What a dry run of an iteration on 8 GPUs says of each stage."""
    capsys.readouterr()
    iterate(root, iterations=1, dry_run=True, gpus=8)
    lines = capsys.readouterr().err.splitlines()
    return {line.partition(":")[0]: line for line in lines}


NOT_RUN = "no estimate: this machine has not run a stage like it before"
NOT_FINISHED = "no estimate: this machine has not finished a stage like it before"


def test_hours_on_gpus_follow_from_how_many_were_measured(planned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = told(planned, capsys)
    assert NOT_RUN in said["sample"] and NOT_FINISHED in said["rollout"]
    sample, rollout = built("sample", planned), built("rollout", planned)
    estimates.remember(sample, Spent(units=2, seconds=7200, device_seconds=14400, generated=1000), 0)
    estimates.remember(rollout, Spent(units=4, seconds=3600, device_seconds=3600, generated=100), 10)
    said = told(planned, capsys)
    assert "8 to do" in said["sample"]
    assert "about 4,000 generated tokens and 2.00 h on 8 GPUs" in said["sample"]  # 8 / 2 x 4 hours of one device / 8
    assert said["sample"].endswith("if each is as fast as one of the 2 there")
    assert "about 250 generated tokens and 0.31 h on 8 GPUs" in said["rollout"]  # 10 / 4 x 1 hour / 8
    assert said["rollout"].endswith("with as many units for each of 2 trajectories")
    assert NOT_FINISHED in said["train"]


def test_a_policy_that_is_not_trained_yet_is_as_fast_as_the_base_model(planned: Path) -> None:
    sample = built("sample", planned, model__policy="")
    assert NOT_FINISHED in estimates.forecast(sample, 4)
    estimates.remember(sample, Spent(units=2, seconds=7200, device_seconds=7200), 2)
    assert "about 0.50 h on 4 GPUs" in estimates.forecast(sample, 4)  # 2 / 2 x 2 hours / 4


def test_a_stage_without_a_model_is_not_faster_with_gpus(planned: Path) -> None:
    estimates.remember(built("collect", planned), Spent(units=2, seconds=7200, device_seconds=7200), 0)
    assert "about 30 min" in estimates.estimate(built("collect", planned), 1, gpus=4)


def test_servers_say_nothing_about_gpus(planned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    estimates.remember(built("sample", planned), Spent(units=2, seconds=7200, generated=1000), 0)
    assert told(planned, capsys)["sample"].endswith(f"{NOT_RUN}, on a known number of GPUs")


def test_a_stage_notes_with_how_many_devices_it_was_measured(planned: Path) -> None:
    made = perform("sample", planned).manifest
    assert made is not None and made.spent.device_seconds == made.spent.seconds > 0


def test_gpus_only_estimate(planned: Path) -> None:
    with pytest.raises(UsageError, match="--gpus only estimates"):
        iterate(planned, gpus=8)
