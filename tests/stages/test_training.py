"""How a fine-tuning stage is planned, kept and resumed; the training itself is a stand-in."""

import asyncio
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sandcli.core import estimates
from sandcli.core.artifact import Artifact
from sandcli.core.estimates import duration
from sandcli.core.manifest import Spent
from sandcli.core.stage import Options, Summary
from sandcli.engines.base import Model
from sandcli.errors import Exit, Interrupted, PrerequisiteError, UsageError
from sandcli.perform import perform as perform_stage
from sandcli.stages.training import TrainingStage
from sandcli.training.checkpoints import COMPLETE, last_checkpoint
from sandcli.training.config import TrainingResult
from sandcli.training.distributed import ProcessGroup
from tests.helpers import artifact, contents, context, make_run, perform
from tests.trainer import Trainer


@pytest.fixture
def run(tmp_path: Path, words: Model) -> Path:
    root = make_run(tmp_path / "run", model__base=str(words.folder))
    perform("collect", root, limit=1)
    return root


def sft(root: Path, options: Options | None = None, **settings: Any) -> Summary:
    return asyncio.run(perform_stage("sft", context(root, **settings), options or Options()))


def accepted(root: Path) -> list[str]:
    found: list[str] = json.loads((root / "manifests" / "sft.json").read_text())["accepted"]
    return found


def test_half_trained_model_is_not_finished_with_other_settings(run: Path, trainer: Trainer) -> None:
    trainer.stopped = True
    with pytest.raises(Interrupted):
        sft(run)
    for options in (Options(), Options(accept_stale=True)):
        with pytest.raises(PrerequisiteError, match=r"begun from something else: sft.epochs: was 3, is 2") as caught:
            sft(run, options, sft__epochs=2)
        assert caught.value.fix.startswith("--force") and "--accept-stale" not in caught.value.fix
    trainer.stopped = False
    sft(run)
    assert accepted(run) == []


def test_training_without_a_checkpoint_may_start_again_with_other_settings(
    run: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(stage: TrainingStage, job: Any, processes: int) -> TrainingResult:
        raise UsageError("an adapter of rank 8, not 16", "set lora_rank = 8")

    monkeypatch.setattr(TrainingStage, "_fit", refused)
    with pytest.raises(UsageError, match="of rank 8"):
        sft(run)
    monkeypatch.setattr(TrainingStage, "_fit", lambda stage, job, processes: trainer(stage))
    assert sft(run, sft__lora_rank=8).exit is Exit.DONE


def test_time_of_interrupted_trainings_counts(run: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 100))
    monkeypatch.setattr("sandcli.core.runner.time", SimpleNamespace(monotonic=lambda: next(clock)))
    trainer.stopped = True
    with pytest.raises(Interrupted):
        sft(run)
    trainer.stopped = False
    manifest = sft(run).manifest
    assert manifest is not None and manifest.seconds == 200


def test_processes_of_a_launcher_count_instead_of_trainer_nproc(
    run: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("sandcli.training.distributed", "sandcli.stages.training"):
        monkeypatch.setattr(f"{module}.process_count", lambda: 2)
    monkeypatch.setattr(ProcessGroup, "share", lambda group, session: session)
    assert sft(run, trainer__nproc=8, sft__batch_size=4).exit is Exit.DONE


def test_model_that_was_kept_twice_notes_both_reasons(run: Path, trainer: Trainer) -> None:
    sft(run)
    sft(run, Options(accept_stale=True), sft__epochs=2)
    sft(run, Options(accept_stale=True), sft__epochs=2, run__seed=1)
    assert accepted(run) == ["sft.epochs: was 3, is 2", "run.seed: was 0, is 1"]


def test_unreadable_data_starts_no_training(run: Path, trainer: Trainer) -> None:
    data = run / "expert.jsonl"
    whole = data.read_bytes()
    manifest = run / "manifests" / "collect.json"
    made = manifest.read_bytes()
    manifest.unlink()  # so that the data is as if put there by hand
    for broken, message in ((whole + b"{", "expert.jsonl:2"), (b"", "holds no trajectory")):
        data.write_bytes(broken)
        with pytest.raises(UsageError, match=message):
            sft(run)
    manifest.write_bytes(made)
    data.write_bytes(whole)
    sft(run, sft__epochs=2)  # no training was started that could differ


def test_dry_run_of_force_changes_nothing(run: Path, trainer: Trainer) -> None:
    sft(run)
    for settings in ({}, {"sft__epochs": 2}):
        summary = sft(run, Options(force=True, dry_run=True), **settings)
        assert summary.forecast and summary.message.startswith("sft: missing; 1 trajectories, ")
    assert (run / "sft" / "model.safetensors").exists()


def test_dry_run_estimates_the_time_from_earlier_trainings(
    run: Path, trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    again = Options(force=True, dry_run=True)
    assert sft(run, again).message.endswith("; no estimate: this machine has not run a stage like it before")
    sft(run)  # the stand-in handles 10 tokens a second
    known = re.search(r"([\d,]+) tokens per epoch.* in all of them; about (.*), estimated", sft(run, again).message)
    assert known is not None and known[2] == duration(int(known[1].replace(",", "")) * 3 / 10)
    assert "no estimate" in sft(run, again, sft__method="lora").message


def test_dry_run_without_a_pair_says_what_a_training_would(tmp_path: Path, words: Model, trainer: Trainer) -> None:
    root = make_run(
        tmp_path / "run", method__name="eto", model__base=str(words.folder), model__policy=str(words.folder)
    )
    (root / "pairs.jsonl").write_text("")
    for options in (Options(), Options(dry_run=True)):
        with pytest.raises(UsageError, match=r"pairs\.jsonl holds no pair"):
            perform("prefer", root, options=options)


def test_kill_after_the_model_is_in_place_keeps_it(
    run: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Artifact[Any]) -> None:
        raise Interrupted("sft")

    with monkeypatch.context() as patch:
        patch.setattr(Artifact, "finish", killed)
        patch.setattr("sandcli.core.work.discard", lambda folder: None)
        with pytest.raises(Interrupted):
            sft(run)
    assert (run / "sft.part").exists() and artifact(run, "sft").manifest(part=True) is not None
    made = (run / "sft" / "model.safetensors").stat().st_mtime_ns
    assert sft(run).message.endswith("nothing to do")
    assert (run / "sft" / "model.safetensors").stat().st_mtime_ns == made
    assert not (run / "sft.part").exists() and artifact(run, "sft").manifest(part=True) is None


def test_edited_model_is_accepted_by_its_stage_if_asked_to(run: Path, trainer: Trainer) -> None:
    sft(run)
    (run / "sft" / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(PrerequisiteError, match="was changed after `sand sft` finished"):
        artifact(run, "sft").require()
    with pytest.raises(PrerequisiteError, match="was changed after `sand sft` finished") as caught:
        sft(run)  # it cannot tell new weights from damaged ones
    assert caught.value.fix.startswith(f"if you edited it on purpose: sand sft --run {run} --accept-stale accepts it;")
    sft(run, Options(accept_stale=True))
    assert artifact(run, "sft").require() == run / "sft"


def test_finished_model_survives_a_lost_manifest(run: Path, trainer: Trainer) -> None:
    sft(run)
    artifact(run, "sft").note("json").unlink()
    with pytest.raises(PrerequisiteError, match="sft has no manifest"):
        sft(run)
    sft(run, Options(accept_stale=True))
    assert accepted(run) == [f"{run}/sft has no manifest"]
    assert sft(run).message.endswith("nothing to do")


def test_checkpoints_are_not_dropped_because_their_manifest_is_damaged(run: Path, trainer: Trainer) -> None:
    trainer.stopped = True
    with pytest.raises(Interrupted):
        sft(run)
    artifact(run, "sft").note("json.part").write_text("{")
    with pytest.raises(PrerequisiteError, match="sft has no manifest"):
        sft(run)
    assert (run / "sft.part" / "checkpoints" / "checkpoint-1").exists()


def test_folder_with_the_name_of_no_checkpoint_is_left_alone(tmp_path: Path) -> None:
    for name in ("checkpoint-9", "checkpoint-10", "checkpoint-old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / COMPLETE).touch()
    (tmp_path / "checkpoint-9" / COMPLETE).unlink()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-old"]


def test_model_is_put_back_if_its_successor_cannot_be_trained(
    run: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_weights(*_: object) -> None:
        raise PrerequisiteError("the weights are damaged", "copy them again")

    sft(run)
    before = contents(run)
    monkeypatch.setattr(TrainingStage, "_fit", no_weights)
    with pytest.raises(PrerequisiteError, match="damaged"):
        sft(run, Options(force=True))
    assert contents(run) == before


def test_manifest_counts_steps_and_tokens_of_the_whole_training(run: Path, trainer: Trainer) -> None:
    manifest = sft(run, sft__max_steps=7).manifest
    assert manifest is not None and manifest.tokens == 10
    counts = {name: manifest.counts[name] for name in ("steps", "tokens_in_all_steps", "tokens_with_loss_in_all_steps")}
    assert counts == {"steps": 1, "tokens_in_all_steps": 70, "tokens_with_loss_in_all_steps": 35}


def test_number_of_steps_belongs_to_the_identity(run: Path, trainer: Trainer) -> None:
    sft(run)
    with pytest.raises(PrerequisiteError, match=r"sft\.max_steps: was 0, is 7"):
        sft(run, sft__max_steps=7)


def test_the_speed_of_a_training_is_kept_for_estimates(
    run: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(run / "cache"))
    sft(run, trainer__nproc=2)
    (past,) = estimates._past_runs()
    assert past.spent == Spent(units=70, seconds=7.0, device_seconds=14.0)  # 70 tokens, 10 a second
    assert (past.kind.engine, past.kind.processes, past.per_trajectory) == ("training, full", 2, 70)
