"""Units that fail are retried, listed and never recorded; units whose environment dies come out the same."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sandcli.core.run import Run
from sandcli.core.stage import Options
from sandcli.engines.scripted import ScriptedEngine
from sandcli.errors import Exit, MachineryError, PrerequisiteError
from sandcli.method.inconsistency import ExpertStep, sample_record
from sandcli.records import Draw, Sample
from tests.core.runs import LIMIT, STAGES, edit, failing
from tests.helpers import POLICY, artifact, artifacts, fault, lines, make_run, perform, state, turn, write_rules


def test_failed_units_are_listed_and_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_run(tmp_path / "run")
    perform("collect", root, limit=2)
    with failing(monkeypatch, "(House 1.)"):
        summary = perform("sample", root)
    run = Run(root)
    assert (summary.exit, summary.manifest) == (Exit.FAILED_UNITS, None)
    assert sorted(failure.key for failure in summary.failures) == [("fetch_1", step) for step in range(4)]
    assert {(f.reason, f.detail, f.attempts) for f in summary.failures} == {("engine", "out of order", 3)}
    assert run.artifact("sample").failures() == summary.failures
    assert not run.artifact("sample").path.exists()
    assert {line["id"] for line in lines(run.artifact("sample").journal)} == {"fetch_0"}
    assert state("sample", root).kind == "partial"
    with pytest.raises(PrerequisiteError, match=r"samples\.jsonl is missing"):
        perform("rollout", root)


def test_failed_units_are_tried_again_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: list[str]
) -> None:
    root = make_run(tmp_path / "run")
    perform("collect", root, limit=2)
    with failing(monkeypatch, "(House 1.)"):
        perform("sample", root)
    begun.clear()
    assert perform("sample", root).exit is Exit.DONE
    assert sorted(begun) == [f'sample ["fetch_1",{step}]' for step in range(4)]
    assert artifact(root, "sample").failures() == []
    assert len(lines(root / "samples.jsonl")) == 8


def test_unit_is_retried_before_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_run(tmp_path / "run")
    perform("collect", root, limit=1)
    generate = ScriptedEngine.generate
    failures = [MachineryError("engine", "hiccup")] * 2

    async def hiccuping(self: ScriptedEngine, messages: Any, sampling: Any) -> Any:
        if failures:
            raise failures.pop()
        return await generate(self, messages, sampling)

    monkeypatch.setattr(ScriptedEngine, "generate", hiccuping)
    assert perform("sample", root, run__in_flight=1).exit is Exit.DONE
    assert artifact(root, "sample").failures() == []


@pytest.mark.slow
def test_accepted_failures_are_counted_and_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_run(tmp_path / "run")
    perform("collect", root, limit=2)
    with failing(monkeypatch, "(House 1.)"):
        summary = perform("sample", root, options=Options(accept_failures=True))
    assert summary.exit is Exit.DONE
    assert summary.manifest is not None
    assert (summary.manifest.counts["units"], summary.manifest.counts["failed"]) == (4, 4)
    assert {line["id"] for line in lines(root / "samples.jsonl")} == {"fetch_0"}
    assert len(artifact(root, "sample").failures()) == 4
    assert perform("rollout", root).exit is Exit.DONE


def test_stage_gives_up_after_many_failures_in_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: list[str]
) -> None:
    root = make_run(tmp_path / "run", env__tasks="fetch,carry", run__retries=0, run__in_flight=2)
    perform("collect", root)
    begun.clear()
    with failing(monkeypatch):
        summary = perform("sample", root)
    assert summary.exit is Exit.FAILED_UNITS
    assert 20 <= len(begun) <= 22 < state("sample", root).todo
    assert len(summary.failures) == len(begun)


def test_every_unit_is_tried_if_failures_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_run(tmp_path / "run", env__tasks="carry,fetch", run__retries=0, run__in_flight=2)
    perform("collect", root)
    with failing(monkeypatch, "(House 0.)"), failing(monkeypatch, "the lamp from the kitchen"):
        summary = perform("sample", root, options=Options(accept_failures=True))
    assert summary.manifest is not None
    assert summary.manifest.counts["units"] + summary.manifest.counts["failed"] == 42
    assert summary.manifest.counts["units"] > 0


@pytest.mark.slow
def test_broken_world_fails_the_unit_and_not_the_task(tmp_path: Path) -> None:
    faults = tmp_path / "faults"
    root = make_run(tmp_path / "run", env__simplifications=f"faults={faults}", run__retries=0, run__in_flight=1)
    for kind in ("exit", "raise", "exit"):
        fault(faults, kind, "fetch_1 go to garden")
    summary = perform("eval", root, eval__splits=["train"], limit=1)
    assert summary.exit is Exit.DONE
    summary = perform("collect", root, limit=2)
    assert [(f.unit, f.reason) for f in summary.failures] == [(["fetch_1"], "environment")]
    assert [line["id"] for line in lines(artifact(root, "collect").journal)] == ["fetch_0"]
    assert perform("collect", root, limit=2).exit is Exit.DONE
    assert [line["reward"] for line in lines(root / "expert.jsonl")] == [1.0, 1.0]


@pytest.mark.slow
def test_worker_that_dies_in_mid_episode_changes_no_byte(finished: Path, tmp_path: Path) -> None:
    faults = tmp_path / "faults"
    root = make_run(tmp_path / "run", sample__n=2, run__workers=2, env__simplifications=f"faults={faults}")
    for stage in STAGES:
        fault(faults, "exit", "fetch_0 take lamp")
        fault(faults, "raise", "fetch_6 take lamp")
        assert perform(stage, root, limit=LIMIT).exit is Exit.DONE
    assert artifacts(root) == artifacts(finished)


def test_replay_that_diverges_fails_at_the_first_attempt(run: Path) -> None:
    path = artifact(run, "collect").path
    steps = lines(path)[0]["steps"]
    steps[0]["observation"] = "You are in the cellar."
    edit(path, 0, steps=steps)
    for stage in ("sample", "rollout"):
        artifact(run, stage).set_aside()
    perform("sample", run, limit=1)
    summary = perform("rollout", run, limit=1)
    assert summary.exit is Exit.FAILED_UNITS
    assert {(failure.reason, failure.attempts) for failure in summary.failures} == {("replay_diverged", 1)}
    recorded = [(line["step"], line["candidate"]) for line in lines(artifact(run, "rollout").journal)]
    assert recorded
    assert all(step == 0 and candidate > 0 for step, candidate in recorded)


@pytest.mark.slow
def test_replay_of_the_expert_is_tried_again_after_a_failure(tmp_path: Path) -> None:
    faults = tmp_path / "faults"
    root = make_run(tmp_path / "run", env__simplifications=f"faults={faults}", sample__n=5, run__in_flight=1)
    perform("collect", root, limit=1)
    perform("sample", root)
    for _ in range(3):
        fault(faults, "exit", "fetch_0 go to kitchen")
    assert perform("rollout", root).exit is Exit.DONE


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nan", "high", "low"])
def test_score_out_of_range_fails_the_unit(tmp_path: Path, kind: str) -> None:
    faults = tmp_path / "faults"
    root = make_run(tmp_path / "run", env__simplifications=f"faults={faults}", run__retries=0)
    fault(faults, kind, "fetch_1 take lamp")
    summary = perform("collect", root, limit=2)
    score = {"nan": "nan", "high": "7.5", "low": "-1.0"}[kind]
    assert [(f.unit, f.reason, f.detail) for f in summary.failures] == [
        (["fetch_1"], "environment", f"the world gave a score of {score}, which is not between 0 and 1")
    ]
    assert [line["id"] for line in lines(artifact(root, "collect").journal)] == ["fetch_0"]
    assert perform("collect", root, limit=2).exit is Exit.DONE


def test_characters_that_utf8_cannot_hold_are_replaced_and_counted(tmp_path: Path) -> None:
    faults = tmp_path / "faults"
    root = make_run(tmp_path / "run", env__simplifications=f"faults={faults}", sample__n=2)
    answer = turn("half \ud83d of it", "take \udfff lamp")
    script = write_rules(tmp_path / "halves.json", [{"when": POLICY, "replies": [answer]}])
    fault(faults, "surrogate", "fetch_0 take lamp")
    collected = perform("collect", root, limit=1).manifest
    assert collected is not None and collected.spent.replaced == 2
    assert lines(root / "expert.jsonl")[0]["steps"][1]["observation"].endswith(" \ufffd and \ufffd")
    sampled = perform("sample", root, engine__script=str(script)).manifest
    assert sampled is not None and sampled.spent.replaced == 4 * 2 * 2
    assert sampled.spent.rates()["characters replaced"] == 16
    assert lines(root / "samples.jsonl")[0]["samples"][0]["thought"] == "half \ufffd of it"


def test_record_that_could_not_be_read_back_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_run(tmp_path / "run", sample__n=2, run__retries=0)
    perform("collect", root, limit=2)
    made = sample_record

    def broken(at: ExpertStep, draws: list[Draw], drawn: int) -> Sample:
        record = made(at, draws, drawn)
        return record if at.t else replace(record, expert_action="\ud800")

    monkeypatch.setattr("sandcli.stages.sample.sample_record", broken)
    summary = perform("sample", root)
    assert {(f.key, f.reason) for f in summary.failures} == {((name, 0), "record") for name in ("fetch_0", "fetch_1")}
    assert "surrogates not allowed" in summary.failures[0].detail
    monkeypatch.undo()
    assert perform("sample", root).exit is Exit.DONE


def test_failure_with_characters_that_utf8_cannot_hold_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_run(tmp_path / "run", run__retries=0)
    perform("collect", root, limit=1)

    async def failing(*_: Any) -> None:
        raise MachineryError("engine", "it said \udcff")

    monkeypatch.setattr(ScriptedEngine, "generate", failing)
    perform("sample", root)
    assert {failure.detail for failure in artifact(root, "sample").failures()} == {"it said \ufffd"}


def test_request_that_the_engine_cancels_fails_its_unit_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_run(tmp_path / "run", run__retries=1)
    perform("collect", root, limit=2)
    generate = ScriptedEngine.generate

    async def cancelling(self: ScriptedEngine, messages: Any, sampling: Any) -> Any:
        if any("(House 1.)" in message.content for message in messages):
            raise asyncio.CancelledError
        return await generate(self, messages, sampling)

    monkeypatch.setattr(ScriptedEngine, "generate", cancelling)
    summary = perform("sample", root)
    assert {(f.key, f.reason, f.detail, f.attempts) for f in summary.failures} == {
        (("fetch_1", step), "engine", "the request was cancelled", 2) for step in range(4)
    }
    assert {line["id"] for line in lines(artifact(root, "sample").journal)} == {"fetch_0"}
