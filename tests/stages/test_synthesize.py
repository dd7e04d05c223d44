"""The synthesize stage: D_delib with the expert switch, with the ablations of the paper's Table 3, and with gaps."""

import json
from pathlib import Path

import msgspec
import pytest

from sandcli.records import Failure, Step, Trajectory
from tests.helpers import (
    POLICY,
    Rules,
    accept_edit,
    artifact,
    asked,
    lines,
    make_run,
    perform,
    state,
    turn,
    write_rules,
)
from tests.method.made_up import DETOUR, SHORT


def straight() -> Rules:
    """A policy that takes the shortest way, and a base model whose texts pass every check."""
    decides = [
        {
            "when": f"So I will {action}.",
            "replies": [f" would waste a turn, (1) or (2) as it may be. So I will {action}."],
        }
        for action in DETOUR
    ]
    return [
        *decides,
        {"when": asked("critique"), "replies": [" advanced the task."]},
        {"when": "lamp in hand.", "replies": [turn("There.", "drop lamp")]},
        {"when": "Observation: You take the lamp.", "replies": [turn("Back.", "go to hall")]},
        {"when": "Observation: This is the kitchen.", "replies": [turn("Mine.", "take lamp")]},
        {"when": "Observation: You are in the kitchen.", "replies": [turn("Mine.", "take lamp")]},
        {"when": POLICY, "replies": [turn("", "go to kitchen")]},
    ]


@pytest.fixture
def detour(tmp_path: Path) -> Path:
    """A run whose only expert trajectory has one step too many."""
    write_rules(tmp_path / "rules.json", straight())
    run = make_run(tmp_path / "run", method__switch="shorter", sample__n=2)
    perform("collect", run, limit=1)
    known = msgspec.json.decode((run / "expert.jsonl").read_bytes(), type=Trajectory)
    look = Step(thought="", action="look", observation="This is the kitchen. There is a lamp.", score=0.25)
    longer = msgspec.structs.replace(known, steps=[known.steps[0], look, *known.steps[1:]])
    (run / "expert.jsonl").write_bytes(msgspec.json.encode(longer) + b"\n")
    accept_edit("collect", run)
    return run


def test_switch_replaces_the_rest_of_the_trajectory(detour: Path) -> None:
    for stage in ("sample", "rollout", "critique", "synthesize"):
        perform(stage, detour)
    (thought,) = lines(detour / "thoughts.jsonl")
    assert (thought["step"], thought["candidate"]) == (1, 1)
    assert thought["thought"].endswith("So I will take lamp.")
    (after,) = lines(detour / "deliberations.jsonl")
    assert [step["action"] for step in after["steps"]] == SHORT
    assert [step["deliberated"] for step in after["steps"]] == [False, True, False, False]
    assert after["steps"][1]["thought"] == thought["thought"]
    assert "instead of the expert" in after["source"]


def test_changed_switch_rule_makes_thoughts_stale(detour: Path) -> None:
    for stage in ("sample", "rollout", "critique"):
        perform(stage, detour)
    perform("synthesize", detour, method__switch="never")
    assert state("synthesize", detour, method__switch="never").kind == "done"
    assert state("synthesize", detour).kind == "stale"


def test_without_critique_every_flagged_step_is_deliberated(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", method__without="critique")
    for stage in ("collect", "sample"):
        perform(stage, run, limit=2)
    perform("synthesize", run, limit=2)
    flagged = [(s["id"], s["step"]) for s in lines(run / "samples.jsonl") if s["deliberate"]]
    thoughts = lines(run / "thoughts.jsonl")
    assert [(t["id"], t["step"]) for t in thoughts] == flagged
    assert any(t["thought"] for t in thoughts)
    assert not (run / "rollouts.jsonl").exists()


def test_without_sampling_the_base_model_proposes_at_every_step(tmp_path: Path) -> None:
    replies = {
        "take lamp": [" look; (2) take lamp. With (1) I lose time, with (2) I get on. So I will take lamp."],
        "go to hall": [" go to hall. There is only one way to go to hall. So I will go to hall."],
    }
    rules: Rules = [{"when": f"besides: {action}", "replies": said} for action, said in replies.items()]
    rules.append({"when": asked("propose"), "replies": [" I do not know."]})
    write_rules(tmp_path / "rules.json", rules)
    run = make_run(tmp_path / "run", method__without="sampling")
    perform("collect", run, limit=1)
    perform("synthesize", run)
    thoughts = lines(run / "thoughts.jsonl")
    assert [t["step"] for t in thoughts] == [0, 1, 2, 3]
    assert thoughts[1]["thought"].startswith("My options: (1) look; (2) take lamp.")
    assert thoughts[2]["rejected"] == ["lists no alternatives"] * 3
    (after,) = lines(run / "deliberations.jsonl")
    assert [step["deliberated"] for step in after["steps"]] == [False, True, False, False]


def test_trajectory_without_critiques_is_left_out_of_d_delib(tmp_path: Path) -> None:
    """A flagged step without a deliberation would teach the agent not to deliberate where it is inconsistent."""
    run = make_run(tmp_path / "run")
    perform("collect", run)
    perform("sample", run)
    perform("rollout", run, limit=1)
    perform("critique", run)
    perform("synthesize", run)
    judged = {record["id"] for record in lines(run / "rollouts.jsonl")}
    flagged = [(s["id"], s["step"]) for s in lines(run / "samples.jsonl") if s["deliberate"]]
    plain = {s["id"] for s in lines(run / "samples.jsonl")} - {name for name, _ in flagged}
    assert len(judged) == 1
    assert {record["id"] for record in lines(run / "deliberations.jsonl")} == judged | plain
    counts = json.loads((run / "manifests/synthesize.json").read_text())["counts"]
    assert counts["flagged, a critique is missing"] == len([name for name, _ in flagged if name not in judged])


def test_trajectory_with_a_failed_unit_stays_in_d_delib_unchanged(tmp_path: Path) -> None:
    """Unlike a trajectory that was never asked for, it would be missing from all later iterations."""
    run = make_run(tmp_path / "run")
    for stage in ("collect", "sample"):
        perform(stage, run)
    perform("rollout", run, limit=1)
    name, step = next((s["id"], s["step"]) for s in reversed(lines(run / "samples.jsonl")) if s["deliberate"])
    failure = Failure(unit=[name, step, 1], reason="timeout", detail="it hangs", attempts=3)
    artifact(run, "rollout").set_failures([failure])
    perform("critique", run)
    perform("synthesize", run)
    kept = {record["id"]: record for record in lines(run / "deliberations.jsonl")}
    (expert,) = (record for record in lines(run / "expert.jsonl") if record["id"] == name)
    assert kept[name] == expert


def test_removed_d_delib_is_made_again_from_the_thoughts(detour: Path) -> None:
    for stage in ("sample", "rollout", "critique", "synthesize"):
        perform(stage, detour)
    made = (detour / "deliberations.jsonl").read_bytes()
    (detour / "deliberations.jsonl").unlink()
    perform("synthesize", detour)
    assert (detour / "deliberations.jsonl").read_bytes() == made


def test_changed_number_of_proposals_makes_thoughts_stale(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", method__without="sampling")
    perform("collect", run, limit=2)
    perform("synthesize", run, limit=1)
    assert state("synthesize", run, sample__n=2).kind == "stale"


def test_control_without_deliberations_asks_nobody_and_keeps_d_exp(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", method__without="deliberations", engine__script="none.json")
    perform("collect", run)
    assert perform("synthesize", run).message.endswith("0 records")
    assert (run / "deliberations.jsonl").read_bytes() == (run / "expert.jsonl").read_bytes()
    assert state("synthesize", run).kind == "done"


def test_control_follows_the_switch(detour: Path) -> None:
    for stage in ("sample", "rollout", "synthesize"):
        made = perform(stage, detour, method__without="deliberations")
    assert made.manifest is not None and made.manifest.counts["switched"] == 1
    (after,) = lines(detour / "deliberations.jsonl")
    assert [step["action"] for step in after["steps"]] == SHORT
    assert not any(step["deliberated"] for step in after["steps"])


def test_control_notices_a_changed_d_exp(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", method__without="deliberations")
    perform("collect", run, limit=1)
    perform("synthesize", run)
    perform("collect", run, limit=2)
    assert state("synthesize", run).refresh
    perform("synthesize", run)
    assert (run / "deliberations.jsonl").read_bytes() == (run / "expert.jsonl").read_bytes()
