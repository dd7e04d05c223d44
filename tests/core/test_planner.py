"""What makes a finished stage stale, and what does not."""

from pathlib import Path
from typing import Any

import pytest

from sandcli.core.artifact import StageName
from sandcli.core.planner import longest_first
from sandcli.core.stage import Options
from sandcli.errors import UsageError
from tests.core.runs import LIMIT, STAGES, edit, rewrite
from tests.helpers import accept_edit, artifact, built, lines, perform, state
from tests.toyworld import ToyWorld


@pytest.mark.parametrize("stage", STAGES)
def test_workers_batches_and_retries_make_no_stage_stale(finished: Path, stage: StageName) -> None:
    other: dict[str, int] = {"run__workers": 2, "run__in_flight": 3, "run__retries": 0, "engine__batch": 2}
    assert state(stage, finished, limit=LIMIT, **other).kind == "done"


@pytest.mark.parametrize(
    ("stage", "settings", "reason"),
    [
        ("sample", {"sample__temperature": 0.5}, "sample.temperature: was 1.0, is 0.5"),
        ("sample", {"run__seed": 1}, "run.seed: was 0, is 1"),
        ("explore", {"explore__temperature": 0.5}, "explore.temperature: was 1.0, is 0.5"),
        ("explore", {"run__seed": 1}, "run.seed: was 0, is 1"),
        ("rollout", {"rollout__temperature": 0.5}, "rollout.temperature: was 1.0, is 0.5"),
        ("rollout", {"agent__max_invalid": 3}, "agent.max_invalid: was 5, is 3"),
        ("rollout", {"env__simplifications": "rules=2"}, "env.toyworld: was 1, is 2"),
        ("critique", {"critique__max_tokens": 9}, "critique.max_tokens: was 200, is 9"),
        ("synthesize", {"synthesize__attempts": 1}, "synthesize.attempts: was 3, is 1"),
        ("eval", {"agent__max_tokens": 9}, "agent.max_tokens: was 512, is 9"),
        ("eval", {"env__step_limit": 9}, "env.step_limit: was 0, is 9"),
        ("collect", {"env__simplifications": "rules=2"}, "env.toyworld: was 1, is 2"),
    ],
)
def test_content_setting_makes_its_stage_stale(
    finished: Path, stage: StageName, settings: dict[str, Any], reason: str
) -> None:
    found = state(stage, finished, limit=LIMIT, **settings)
    assert (found.kind, found.reasons) == ("stale", [reason])


def test_setting_of_another_stage_changes_nothing(finished: Path) -> None:
    assert state("sample", finished, limit=LIMIT, critique__max_tokens=9, rollout__temperature=0.1).kind == "done"
    assert state("critique", finished, limit=LIMIT, rollout__temperature=0.1, sample__n=1).kind == "done"


@pytest.mark.parametrize("stage", ["explore", "sample", "rollout", "eval"])
def test_changed_instruction_makes_a_stage_stale(
    finished: Path, stage: StageName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToyWorld, "system", "You live elsewhere.")
    (reason,) = state(stage, finished, limit=LIMIT).reasons
    assert reason.startswith("prompt.preamble: was ")


def test_changed_policy_makes_a_stage_stale(run: Path) -> None:
    script = run / "other.json"
    script.write_text("[]")
    for stage in ("sample", "rollout"):
        (reason,) = state(stage, run, limit=LIMIT, engine__script=str(script)).reasons
        assert reason.startswith("policy: was ")


def test_changed_record_makes_only_its_own_units_stale(run: Path) -> None:
    edit(artifact(run, "collect").path, 1, instruction="Bring it.")
    (reason,) = state("sample", run, limit=LIMIT).reasons
    assert reason == '4 units made from other input, first ["fetch_1",0]'


def test_changed_thought_makes_only_later_steps_stale(run: Path) -> None:
    path = artifact(run, "collect").path
    steps = lines(path)[0]["steps"]
    steps[1]["thought"] = "I grab it."
    edit(path, 0, steps=steps)
    (reason,) = state("sample", run, limit=LIMIT).reasons
    assert reason == '2 units made from other input, first ["fetch_0",2]'


def test_changed_source_makes_no_unit_stale(run: Path) -> None:
    edit(artifact(run, "collect").path, 1, source="elsewhere")
    assert state("sample", run, limit=LIMIT).kind == "done"


def test_record_without_its_input_makes_a_stage_stale(run: Path) -> None:
    path = artifact(run, "collect").path
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    accept_edit("collect", run, limit=LIMIT)
    (reason,) = state("sample", run, limit=LIMIT).reasons
    assert reason == '4 units no longer in the input, first ["fetch_0",0]'


def test_artifact_without_a_manifest_is_stale(run: Path) -> None:
    artifact(run, "sample").note("json").unlink()
    found = state("sample", run, limit=LIMIT)
    assert (found.kind, found.reasons) == ("stale", [f"{run}/samples.jsonl has no manifest"])


def test_new_candidates_make_the_thoughts_of_their_step_stale(run: Path) -> None:
    for stage in ("sample", "rollout", "critique"):
        perform(stage, run, limit=LIMIT, sample__n=5)
    found = state("synthesize", run, limit=LIMIT, sample__n=5)
    assert found.kind == "stale"
    assert "units made from other input" in found.reasons[0]


def test_fewer_trajectories_make_every_later_stage_stale(run: Path) -> None:
    perform("collect", run, limit=1, options=Options(force=True))
    for stage in ("sample", "rollout", "critique", "synthesize"):
        assert state(stage, run, limit=1).kind == "stale"


@pytest.mark.parametrize("change", [{"end": "max_steps"}, {"success": False}, {"reward": 0.25}])
def test_changed_outcome_of_a_rollout_makes_its_critique_stale(run: Path, change: dict[str, Any]) -> None:
    path = artifact(run, "rollout").path
    number = next(n for n, line in enumerate(lines(path)) if line["success"] and line["end"] == "done")
    rewrite(path, number, **change)
    accept_edit("rollout", run, limit=LIMIT)
    (reason,) = state("critique", run, limit=LIMIT).reasons
    assert reason.startswith("1 units made from other input")


def test_changed_reward_of_the_expert_makes_rollouts_and_critiques_stale(run: Path) -> None:
    edit(artifact(run, "collect").path, 0, reward=0.75, success=False)
    for stage in ("rollout", "critique"):
        (reason,) = state(stage, run, limit=LIMIT).reasons
        assert reason.endswith('units made from other input, first ["fetch_0",0,0]')


def test_changed_observation_of_the_last_step_reaches_d_delib_without_force(run: Path) -> None:
    path = artifact(run, "collect").path
    edited = next(n for n, line in enumerate(lines(path)) if line["id"] == "fetch_0")
    steps = lines(path)[edited]["steps"]
    steps[-1]["observation"] = "You put down the lamp."
    edit(path, edited, steps=steps)
    assert state("sample", run, limit=LIMIT).refresh and state("synthesize", run, limit=LIMIT).refresh
    perform("synthesize", run, limit=LIMIT)
    assert lines(run / "deliberations.jsonl")[edited]["steps"][-1]["observation"] == "You put down the lamp."


def test_candidate_that_no_sample_has_is_named(run: Path) -> None:
    path = artifact(run, "sample").path
    number, line = next((n, line) for n, line in enumerate(lines(path)) if line["deliberate"])
    rewrite(path, number, candidates=[*line["candidates"], {"action": "fly", "count": 1}])
    accept_edit("sample", run, limit=LIMIT)
    with pytest.raises(UsageError, match=rf"{line['id']}, step {line['step']}: no sample contains the candidate 'fly'"):
        perform("rollout", run, limit=LIMIT)


class Nothing(dict[Any, Any]):
    """No record."""

    def ordered_keys(self) -> list[Any]:
        return []


def test_on_a_cluster_long_units_come_first_and_each_once(finished: Path) -> None:
    stage = built("rollout", finished)
    canonical, ordered = list(stage.units()), list(longest_first(stage, Nothing()))
    assert sorted(unit.key for unit in ordered) == [unit.key for unit in canonical]
    digits = [stage.length(unit).bit_length() for unit in ordered]
    assert digits == sorted(digits, reverse=True)
    assert len(set(digits)) > 1
