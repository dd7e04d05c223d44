"""A stage does nothing, the rest, or all of its work; what is stale is refused, redone or accepted."""

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest

from sandcli.core.artifact import Artifact
from sandcli.core.stage import Options
from sandcli.errors import Exit, Interrupted, PrerequisiteError, UsageError
from tests.core.runs import LIMIT, STAGES, edit, failing
from tests.helpers import artifact, artifacts, contents, lines, make_run, perform, state


def test_finished_stage_does_nothing(finished: Path, begun: list[str]) -> None:
    before = contents(finished)
    for stage in STAGES:
        assert state(stage, finished, limit=LIMIT).kind == "done"
        assert perform(stage, finished, limit=LIMIT).message.endswith(" is complete: nothing to do")
    assert contents(finished) == before
    assert begun == []


@pytest.mark.slow
def test_every_unit_is_begun_once_and_recorded_once(tmp_path: Path, begun: list[str]) -> None:
    root = make_run(tmp_path / "run", sample__n=2)
    for stage in STAGES:
        perform(stage, root, limit=2)
    assert len(begun) == len(set(begun)) == sum(len(lines(artifact(root, stage).path)) for stage in STAGES)


def test_stale_stage_is_refused_and_left_alone(run: Path, begun: list[str]) -> None:
    before = contents(run)
    with pytest.raises(PrerequisiteError, match=r"samples\.jsonl was made from something else: run\.seed: was 0, is 1"):
        perform("sample", run, limit=LIMIT, run__seed=1)
    assert contents(run) == before
    assert begun == []


def test_force_moves_the_old_aside_and_redoes_the_stage(run: Path, tmp_path: Path) -> None:
    old = artifact(run, "sample").path.read_bytes()
    summary = perform("sample", run, limit=LIMIT, options=Options(force=True), run__seed=1)
    assert summary.exit is Exit.DONE
    assert [path.read_bytes() for path in run.glob("aside/*/samples.jsonl")] == [old]
    fresh = make_run(tmp_path / "fresh", sample__n=2, run__seed=1)
    perform("collect", fresh, limit=LIMIT)
    perform("sample", fresh, limit=LIMIT)
    assert artifact(run, "sample").path.read_bytes() == artifact(fresh, "sample").path.read_bytes() != old
    assert state("sample", run, limit=LIMIT, run__seed=1).kind == "done"


def test_accept_stale_keeps_the_old_and_notes_why(run: Path, begun: list[str]) -> None:
    old = artifact(run, "sample").path.read_bytes()
    summary = perform("sample", run, limit=LIMIT, options=Options(accept_stale=True), run__seed=1)
    assert summary.exit is Exit.DONE
    assert artifact(run, "sample").path.read_bytes() == old
    assert begun == []
    manifest = artifact(run, "sample").manifest()
    assert manifest is not None
    assert manifest.accepted == ["run.seed: was 0, is 1"]
    assert state("sample", run, limit=LIMIT, run__seed=1).kind == "done"
    assert state("sample", run, limit=LIMIT).kind == "stale"


def test_accepted_input_stays_accepted(run: Path) -> None:
    edit(artifact(run, "collect").path, 1, instruction="Bring it.")
    perform("sample", run, limit=LIMIT, options=Options(accept_stale=True))
    assert state("sample", run, limit=LIMIT).kind == "done"


def test_accepted_change_is_noted_though_the_stage_finishes_later(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    perform("collect", run, limit=LIMIT + 1)
    with failing(monkeypatch):
        assert perform("sample", run, options=Options(accept_stale=True), run__seed=1).exit is Exit.FAILED_UNITS
    assert perform("sample", run, options=Options(accept_stale=True), run__seed=1).exit is Exit.DONE
    manifest = artifact(run, "sample").manifest()
    assert manifest is not None
    assert manifest.accepted == ["run.seed: was 0, is 1"]


def test_dry_run_changes_nothing(run: Path, begun: list[str]) -> None:
    before = contents(run)
    options = Options(dry_run=True)
    assert perform("sample", run, limit=LIMIT, options=options).message == "sample: done; 12 units recorded, 0 to do"
    told = perform("collect", run, limit=5, options=options).message
    assert told.startswith('collect: wider; 3 units recorded, 2 to do; first ["fetch_3"]; ')
    assert perform("sample", run, options=Options(force=True, dry_run=True)).manifest is None
    assert contents(run) == before
    assert begun == []


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"run__in_flight": 1}, {"run__in_flight": 64, "run__workers": 2}])
def test_concurrency_changes_no_byte(finished: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    root = make_run(tmp_path / "run", sample__n=2, **settings)
    for stage in STAGES:
        perform(stage, root, limit=LIMIT)
    assert artifacts(root) == artifacts(finished)


def test_task_that_the_expert_cannot_do_is_left_out_with_the_reason(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run", env__tasks="riddle,carry")
    summary = perform("collect", root)
    assert summary.exit is Exit.DONE
    assert summary.manifest is not None
    why = "the expert's own path does not reach the full score: 0.75 of 1.00"
    assert summary.manifest.left_out == {'["riddle_0"]': why, '["riddle_1"]': why}
    assert {line["task"]["name"] for line in lines(root / "expert.jsonl")} == {"carry"}
    assert state("collect", root).kind == "done"


def test_kill_before_the_last_step_of_sealing_costs_nothing(
    tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, begun: list[str]
) -> None:
    def killed(*_: object) -> None:
        raise Interrupted("sample")

    root = make_run(tmp_path / "run", sample__n=2)
    perform("collect", root, limit=LIMIT)
    with monkeypatch.context() as patch:
        patch.setattr(Artifact, "finish", killed)
        with pytest.raises(Interrupted):
            perform("sample", root, limit=LIMIT)
    assert artifact(root, "sample").path.exists()
    assert state("sample", root, limit=LIMIT).kind == "partial"
    begun.clear()
    assert perform("sample", root, limit=LIMIT).exit is Exit.DONE
    assert begun == []
    assert artifact(root, "sample").path.read_bytes() == artifact(finished, "sample").path.read_bytes()
    assert state("sample", root, limit=LIMIT).kind == "done"


def test_manifests_count_what_was_made(finished: Path) -> None:
    made = {stage: artifact(finished, stage).manifest() for stage in STAGES}
    for stage, manifest in made.items():
        assert manifest is not None
        assert manifest.counts["units"] == len(lines(artifact(finished, stage).path))
        assert (manifest.counts["failed"], manifest.left_out, manifest.accepted) == (0, {}, [])
    samples, rollouts, thoughts = made["sample"], made["rollout"], made["synthesize"]
    assert samples and rollouts and thoughts
    flagged = sum(line["deliberate"] for line in lines(finished / "samples.jsonl"))
    assert 0 < flagged < samples.counts["units"]
    assert samples.counts["flagged"] == rollouts.counts["flagged"] == thoughts.counts["flagged"] == flagged
    assert thoughts.counts["deliberated"] + thoughts.counts["kept_original"] == flagged
    assert 0 < thoughts.counts["kept_original"] < flagged
    assert sum(count for name, count in thoughts.counts.items() if name.startswith("rejected: ")) > 0


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system on which nothing can be written. (Permissions would not stop a test that runs as root.)"""
    os_open, io_open = os.open, io.open

    def refuse(path: Any, *_: Any, **__: Any) -> Any:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    def open_descriptor(path: Any, flags: int, *more: Any, **named: Any) -> int:
        allowed = not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        return int((os_open if allowed else refuse)(path, flags, *more, **named))

    def open_file(path: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
        return (refuse if set(mode) & set("wax+") else io_open)(path, mode, *more, **named)

    monkeypatch.setattr(os, "open", open_descriptor)
    monkeypatch.setattr(io, "open", open_file)
    for name in ("mkdir", "rename", "replace", "unlink"):
        monkeypatch.setattr(os, name, refuse)


@pytest.mark.usefixtures("read_only")
def test_nothing_to_do_and_dry_run_write_nothing(finished: Path) -> None:
    for stage in STAGES:
        assert perform(stage, finished, limit=LIMIT).message.endswith("nothing to do")
    told = perform("sample", finished, limit=LIMIT, options=Options(dry_run=True), sample__n=3).message
    assert told.startswith("sample: wider; 12 units recorded, 12 to do")
    assert "missing" in perform("collect", finished, options=Options(force=True, dry_run=True)).message


@pytest.mark.usefixtures("read_only")
def test_work_that_cannot_be_written_is_refused_with_the_path(finished: Path) -> None:
    with pytest.raises(PrerequisiteError, match=f"^{finished}/.*: cannot write: Read-only file system$"):
        perform("sample", finished, limit=LIMIT, sample__n=3)


def test_dry_run_needs_no_lock(run: Path) -> None:
    with artifact(run, "sample").locked():
        assert perform("sample", run, limit=LIMIT, options=Options(dry_run=True)).message.startswith("sample: done")


def test_evaluation_without_a_task_is_refused(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run", env__tasks="riddle")
    with pytest.raises(UsageError, match="no task to evaluate on in the splits seen, unseen of toyworld"):
        perform("eval", root)
    assert not (root / "eval.jsonl").exists()
