"""How a stage is planned, resumed, widened, refused and sealed: on the toy world, with the scripted engine."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sandcli.core.artifact import Artifact, StageName
from sandcli.core.run import Run
from sandcli.core.stage import Options
from sandcli.engines.scripted import ScriptedEngine
from sandcli.errors import Exit, Interrupted, MachineryError, PrerequisiteError
from tests.helpers import accept_edit, artifact, artifacts, contents, fault, lines, make_run, perform, state, watched
from tests.toyworld import ToyWorld

STAGES: tuple[StageName, ...] = ("collect", "sample", "rollout", "critique", "synthesize", "eval")
LIMIT = 3


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every stage done on three trajectories; look, do not touch."""
    root = make_run(tmp_path_factory.mktemp("finished") / "run", sample__n=2, run__workers=1)
    for stage in STAGES:
        perform(stage, root, limit=LIMIT)
    return root


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """The same, to work on."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The units that are begun, as `STAGE UNIT`."""
    units: list[str] = []
    watched(units.append, monkeypatch.setattr)
    return units


def edit(path: Path, line: int, **changes: Any) -> None:
    """Change fields of one record of a file."""
    records = lines(path)
    records[line].update(changes)
    path.write_text("".join(json.dumps(record, separators=(",", ":"), ensure_ascii=False) + "\n" for record in records))
    accept_edit("collect", path.parent, limit=LIMIT)


def test_a_finished_stage_is_done_and_does_nothing(finished: Path, begun: list[str]) -> None:
    before = contents(finished)
    for stage in STAGES:
        assert state(stage, finished, limit=LIMIT).kind == "done"
        assert perform(stage, finished, limit=LIMIT).message.endswith(" is complete: nothing to do")
    assert contents(finished) == before
    assert begun == []


def test_every_unit_is_begun_once_and_recorded_once(tmp_path: Path, begun: list[str]) -> None:
    root = make_run(tmp_path / "run", sample__n=2)
    for stage in STAGES:
        perform(stage, root, limit=2)
    assert len(begun) == len(set(begun)) == sum(len(lines(artifact(root, stage).path)) for stage in STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_workers_batches_and_retries_are_no_part_of_the_identity(finished: Path, stage: StageName) -> None:
    other: dict[str, int] = {"run__workers": 1, "run__in_flight": 3, "run__retries": 0, "engine__batch": 2}
    assert state(stage, finished, limit=LIMIT, **other).kind == "done"


@pytest.mark.parametrize(
    ("stage", "settings", "reason"),
    [
        ("sample", {"sample__temperature": 0.5}, "sample.temperature: was 1.0, is 0.5"),
        ("sample", {"run__seed": 1}, "run.seed: was 0, is 1"),
        ("rollout", {"rollout__temperature": 0.5}, "rollout.temperature: was 1.0, is 0.5"),
        ("rollout", {"agent__max_invalid": 3}, "agent.max_invalid: was 5, is 3"),
        ("rollout", {"env__simplifications": "rules=2"}, "env.toyworld: was 1, is 2"),
        ("critique", {"critique__max_tokens": 9}, "critique.max_tokens: was 160, is 9"),
        ("synthesize", {"synthesize__attempts": 1}, "synthesize.attempts: was 3, is 1"),
        ("eval", {"agent__max_tokens": 9}, "agent.max_tokens: was 512, is 9"),
        ("eval", {"env__step_limit": 9}, "env.step_limit: was 0, is 9"),
        ("collect", {"env__simplifications": "rules=2"}, "env.toyworld: was 1, is 2"),
    ],
)
def test_a_setting_that_changes_content_makes_a_stage_stale(
    finished: Path, stage: StageName, settings: dict[str, Any], reason: str
) -> None:
    found = state(stage, finished, limit=LIMIT, **settings)
    assert (found.kind, found.reasons) == ("stale", [reason])


def test_a_setting_of_another_stage_changes_nothing(finished: Path) -> None:
    assert state("sample", finished, limit=LIMIT, critique__max_tokens=9, rollout__temperature=0.1).kind == "done"
    assert state("critique", finished, limit=LIMIT, rollout__temperature=0.1, sample__n=1).kind == "done"


@pytest.mark.parametrize("stage", ["sample", "rollout", "eval"])
def test_another_instruction_makes_a_stage_stale(
    finished: Path, stage: StageName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToyWorld, "system", "You live elsewhere.")
    (reason,) = state(stage, finished, limit=LIMIT).reasons
    assert reason.startswith("prompt.instruction: was ")


def test_another_policy_makes_a_stage_stale(run: Path) -> None:
    script = run / "other.json"
    script.write_text("[]")
    for stage in ("sample", "rollout"):
        (reason,) = state(stage, run, limit=LIMIT, engine__script=str(script)).reasons
        assert reason.startswith("policy: was ")


def test_a_changed_record_makes_only_its_own_units_stale(run: Path) -> None:
    edit(artifact(run, "collect").path, 1, instruction="Bring it.")
    (reason,) = state("sample", run, limit=LIMIT).reasons
    assert reason == '4 units made from other input, first ["fetch_1",0]'


def test_the_thought_of_a_step_counts_for_the_steps_after_it(run: Path) -> None:
    path = artifact(run, "collect").path
    steps = lines(path)[0]["steps"]
    steps[1]["thought"] = "I grab it."
    edit(path, 0, steps=steps)
    (reason,) = state("sample", run, limit=LIMIT).reasons
    assert reason == '2 units made from other input, first ["fetch_0",2]'


def test_a_change_outside_the_content_is_no_change(run: Path) -> None:
    edit(artifact(run, "collect").path, 1, source="elsewhere")
    assert state("sample", run, limit=LIMIT).kind == "done"


def test_records_whose_input_is_gone_make_a_stage_stale(run: Path) -> None:
    path = artifact(run, "collect").path
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    accept_edit("collect", run, limit=LIMIT)
    (reason,) = state("sample", run, limit=LIMIT).reasons
    assert reason == '4 units no longer in the input, first ["fetch_0",0]'


def test_an_artifact_without_a_manifest_is_not_trusted(run: Path) -> None:
    artifact(run, "sample").note("json").unlink()
    found = state("sample", run, limit=LIMIT)
    assert (found.kind, found.reasons) == ("stale", [f"{run}/samples.jsonl has no manifest"])


def test_a_stale_stage_is_refused_and_left_alone(run: Path, begun: list[str]) -> None:
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


def test_accept_stale_keeps_the_old_and_says_so(run: Path, begun: list[str]) -> None:
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


def test_what_was_accepted_is_remembered_when_the_stage_is_finished_later(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    perform("collect", run, limit=LIMIT + 1)
    with failing(monkeypatch):
        assert perform("sample", run, options=Options(accept_stale=True), run__seed=1).exit is Exit.FAILED_UNITS
    assert perform("sample", run, options=Options(accept_stale=True), run__seed=1).exit is Exit.DONE
    manifest = artifact(run, "sample").manifest()
    assert manifest is not None
    assert manifest.accepted == ["run.seed: was 0, is 1"]


def test_a_dry_run_changes_nothing(run: Path, begun: list[str]) -> None:
    before = contents(run)
    options = Options(dry_run=True)
    assert perform("sample", run, limit=LIMIT, options=options).message == "sample: done; 12 units recorded, 0 to do"
    told = perform("collect", run, limit=5, options=options).message
    assert told.startswith('collect: wider; 3 units recorded, 2 to do; first ["fetch_3"]; ')
    assert perform("sample", run, options=Options(force=True, dry_run=True)).manifest is None
    assert contents(run) == before
    assert begun == []


@pytest.mark.parametrize("settings", [{"run__in_flight": 1, "run__workers": 1}, {"run__in_flight": 64}])
def test_the_same_bytes_come_of_any_concurrency(finished: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    root = make_run(tmp_path / "run", sample__n=2, **settings)
    for stage in STAGES:
        perform(stage, root, limit=LIMIT)
    assert artifacts(root) == artifacts(finished)


def test_a_larger_n_gives_the_bytes_of_a_fresh_run(run: Path, tmp_path: Path, begun: list[str]) -> None:
    fresh = make_run(tmp_path / "fresh", sample__n=5)
    perform("collect", fresh, limit=LIMIT)
    for stage in ("sample", "rollout", "critique"):
        perform(stage, fresh, limit=LIMIT)
        begun.clear()
        assert state(stage, run, limit=LIMIT, sample__n=5).kind == "wider"
        perform(stage, run, limit=LIMIT, sample__n=5)
        assert artifact(run, stage).path.read_bytes() == artifact(fresh, stage).path.read_bytes()
        assert state(stage, run, limit=LIMIT, sample__n=5).kind == "done"
    assert 0 < len(begun) < len(lines(artifact(run, "critique").path))


def test_a_larger_n_draws_only_what_is_missing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    generate = ScriptedEngine.generate

    async def counted(self: ScriptedEngine, messages: Any, sampling: Any) -> Any:
        drawn.append(sampling.n)
        return await generate(self, messages, sampling)

    monkeypatch.setattr(ScriptedEngine, "generate", counted)
    perform("sample", run, limit=LIMIT, sample__n=5)
    assert drawn == [3] * 12


def test_a_smaller_n_asks_for_nothing(run: Path) -> None:
    before = contents(run)
    assert perform("sample", run, limit=LIMIT, sample__n=1).message.endswith("nothing to do")
    assert contents(run) == before


def test_new_candidates_make_the_thoughts_of_their_step_stale(run: Path) -> None:
    for stage in ("sample", "rollout", "critique"):
        perform(stage, run, limit=LIMIT, sample__n=5)
    found = state("synthesize", run, limit=LIMIT, sample__n=5)
    assert found.kind == "stale"
    assert "units made from other input" in found.reasons[0]


def test_more_trajectories_give_the_bytes_of_a_fresh_run(run: Path, tmp_path: Path, begun: list[str]) -> None:
    fresh = make_run(tmp_path / "fresh", sample__n=2)
    for stage in STAGES:
        perform(stage, fresh)
        done = len(lines(artifact(run, stage).path))
        begun.clear()
        perform(stage, run)
        assert len(begun) == len(lines(artifact(run, stage).path)) - done
        assert all(unit.startswith(f"{stage} ") for unit in begun)
    assert artifacts(run) == artifacts(fresh)


def test_a_stage_can_be_widened_step_by_step(finished: Path, tmp_path: Path) -> None:
    root = make_run(tmp_path / "run", sample__n=2, run__workers=1)
    for limit in (2, 3):
        for stage in STAGES:
            assert perform(stage, root, limit=limit).exit is Exit.DONE
    assert artifacts(root) == artifacts(finished)


def test_a_limit_holds_for_a_stage_whose_input_is_larger(run: Path, tmp_path: Path, begun: list[str]) -> None:
    root = make_run(tmp_path / "wide", sample__n=2)
    perform("collect", root)
    perform("sample", root, limit=2)
    assert {line["id"] for line in lines(artifact(root, "sample").path)} == {"fetch_0", "fetch_1"}
    begun.clear()
    assert perform("sample", run, limit=2).message.endswith("nothing to do")
    assert begun == []


def test_more_tasks_and_splits_only_add(run: Path, begun: list[str]) -> None:
    eval_before = lines(artifact(run, "eval").path)
    perform("collect", run, env__tasks=["fetch", "carry"])
    assert sorted(begun) == [f'collect ["{name}"]' for name in ("carry_0", "carry_1", "carry_2", "carry_3")] + [
        f'collect ["{name}"]' for name in ("carry_4", "carry_5", "fetch_3", "fetch_4", "fetch_5")
    ]
    begun.clear()
    perform("eval", run, limit=LIMIT, eval__splits=["train", "seen", "unseen"])
    assert sorted(begun) == [f'eval ["train","fetch",{v},"model"]' for v in range(3)]
    assert [line for line in lines(artifact(run, "eval").path) if line["split"] != "train"] == eval_before


def test_splits_one_after_the_other_come_to_the_same_as_together(finished: Path, run: Path) -> None:
    artifact(run, "eval").set_aside()
    perform("eval", run, limit=LIMIT, eval__splits=["seen"])
    perform("eval", run, limit=LIMIT, eval__splits=["unseen"])
    assert state("eval", run, limit=LIMIT).kind == "done"
    perform("eval", run, limit=LIMIT)
    assert artifacts(run) == artifacts(finished)


def test_models_one_after_the_other(run: Path, begun: list[str]) -> None:
    perform("eval", run, limit=1, eval__models=["base"])
    assert sorted(begun) == ['eval ["seen","fetch",6,"base"]', 'eval ["unseen","fetch",9,"base"]']
    assert state("eval", run, limit=1, eval__models=["model", "base"]).kind == "done"


def test_what_the_expert_cannot_do_is_left_out_with_the_reason(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run", env__tasks="riddle,carry")
    summary = perform("collect", root)
    assert summary.exit is Exit.DONE
    assert summary.manifest is not None
    why = "the expert's own path reaches 0.75, not 1.00"
    assert summary.manifest.left_out == {'["riddle_0"]': why, '["riddle_1"]': why}
    assert {line["task"]["name"] for line in lines(root / "expert.jsonl")} == {"carry"}
    assert state("collect", root).kind == "done"


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, where: str = "") -> Iterator[None]:
    """Inside, the engine fails on conversations that contain a text."""
    generate = ScriptedEngine.generate

    async def broken(self: ScriptedEngine, messages: Any, sampling: Any) -> Any:
        if any(where in message.content for message in messages):
            raise MachineryError("engine", "out of order")
        return await generate(self, messages, sampling)

    with monkeypatch.context() as patch:
        patch.setattr(ScriptedEngine, "generate", broken)
        yield


def test_failed_units_are_listed_and_no_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_failed_units_are_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: list[str]) -> None:
    root = make_run(tmp_path / "run")
    perform("collect", root, limit=2)
    with failing(monkeypatch, "(House 1.)"):
        perform("sample", root)
    begun.clear()
    assert perform("sample", root).exit is Exit.DONE
    assert sorted(begun) == [f'sample ["fetch_1",{step}]' for step in range(4)]
    assert artifact(root, "sample").failures() == []
    assert len(lines(root / "samples.jsonl")) == 8


def test_a_unit_is_retried_before_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_accepted_failures_are_counted_and_are_no_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_hopeless_stage_gives_up_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: list[str]) -> None:
    root = make_run(tmp_path / "run", env__tasks="fetch,carry", run__retries=0, run__in_flight=2)
    perform("collect", root)
    begun.clear()
    with failing(monkeypatch):
        summary = perform("sample", root)
    assert summary.exit is Exit.FAILED_UNITS
    assert 20 <= len(begun) <= 22 < state("sample", root).todo
    assert len(summary.failures) == len(begun)


def test_who_accepts_failures_gets_every_unit_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_run(tmp_path / "run", env__tasks="carry,fetch", run__retries=0, run__in_flight=2)
    perform("collect", root)
    with failing(monkeypatch, "(House 0.)"), failing(monkeypatch, "the lamp from the kitchen"):
        summary = perform("sample", root, options=Options(accept_failures=True))
    assert summary.manifest is not None
    assert summary.manifest.counts["units"] + summary.manifest.counts["failed"] == 42
    assert summary.manifest.counts["units"] > 0


def test_a_broken_world_is_no_failed_task(tmp_path: Path) -> None:
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


def test_a_worker_that_dies_in_mid_episode_changes_no_byte(finished: Path, tmp_path: Path) -> None:
    faults = tmp_path / "faults"
    root = make_run(tmp_path / "run", sample__n=2, env__simplifications=f"faults={faults}")
    for stage in STAGES:
        fault(faults, "exit", "fetch_0 take lamp")
        fault(faults, "raise", "fetch_6 take lamp")
        assert perform(stage, root, limit=LIMIT).exit is Exit.DONE
    assert artifacts(root) == artifacts(finished)


def test_a_replay_that_diverges_is_listed_at_once_and_is_no_record(run: Path) -> None:
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


def test_an_expert_replay_that_failed_once_is_tried_again(tmp_path: Path) -> None:
    faults = tmp_path / "faults"
    root = make_run(tmp_path / "run", env__simplifications=f"faults={faults}", sample__n=5, run__in_flight=1)
    perform("collect", root, limit=1)
    perform("sample", root)
    for _ in range(3):
        fault(faults, "exit", "fetch_0 go to kitchen")
    assert perform("rollout", root).exit is Exit.DONE


def test_a_kill_between_the_artifact_and_its_manifest_costs_nothing(
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


def test_fewer_trajectories_make_every_later_stage_stale(run: Path) -> None:
    perform("collect", run, limit=1, options=Options(force=True))
    for stage in ("sample", "rollout", "critique", "synthesize"):
        assert state(stage, run, limit=1).kind == "stale"


def test_manifests_tell_what_was_made(finished: Path) -> None:
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
