"""The options of the method: the expert switch, and the ablations of the paper's Table 3."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sandcli.engines.base import Completion, Sampling
from sandcli.engines.scripted import ScriptedEngine
from sandcli.errors import UsageError
from sandcli.messages import Message
from sandcli.method.critique import Case, critique_prompt
from sandcli.method.d_delib import deliberated
from sandcli.method.deliberation import Option, Question, rejection_reason
from sandcli.method.expert_switch import switched, switches
from sandcli.method.inconsistency import ExpertStep
from sandcli.method.writing import write_guided
from sandcli.new_run import assigned, start_run
from sandcli.records import Failure, Rollout, Step, Task, Thought, Trajectory
from sandcli.settings import CritiqueSettings
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

DETOUR = ["go to kitchen", "look", "take lamp", "go to hall", "drop lamp"]
SHORT = ["go to kitchen", "take lamp", "go to hall", "drop lamp"]


def steps(*actions: str) -> list[Step]:
    return [Step(thought="", action=action, observation="", score=0.0) for action in actions]


def trajectory(reward: float = 0.5) -> Trajectory:
    task = Task(name="fetch", variation=0)
    return Trajectory(
        id="a", env="toy", task=task, instruction="", steps=steps(*DETOUR), reward=reward, success=False, source="gold"
    )


def rollout(reward: float, step: int, *actions: str, candidate: int = 1) -> Rollout:
    return Rollout(
        id="a",
        step=step,
        candidate=candidate,
        action=actions[0],
        thought="",
        expert=candidate == 0,
        count=1,
        steps=steps(*actions),
        reward=reward,
        success=reward == 1.0,
        end="done",
        tokens=0,
    )


@pytest.mark.parametrize(
    ("rule", "reward", "actions", "taken"),
    [
        ("better", 0.75, ("take lamp",) * 9, True),
        ("better", 0.5, ("take lamp",), False),
        ("shorter", 0.5, ("take lamp",) * 3, True),
        ("shorter", 0.5, ("take lamp",) * 4, False),
        ("shorter", 0.25, ("take lamp",), False),
        ("never", 1.0, ("take lamp",), False),
        ("better", 1.0, ("take lamp", ""), False),
    ],
)
def test_who_takes_the_experts_place(rule: Any, reward: float, actions: tuple[str, ...], taken: bool) -> None:
    found = switches({"a": trajectory()}, [rollout(reward, 1, *actions)], rule)
    assert ("a" in found) is taken


@pytest.mark.parametrize("end", ["invalid_actions", "context"])
def test_a_rollout_that_broke_off_is_no_example(end: Any) -> None:
    broken = msgspec.structs.replace(rollout(0.75, 1, "take lamp"), end=end)
    assert not switches({"a": trajectory()}, [broken], "better")


def test_the_expert_itself_is_no_candidate() -> None:
    assert not switches({"a": trajectory()}, [rollout(1.0, 1, "look", candidate=0)], "better")


def test_of_several_the_best_then_the_shortest_then_the_earliest_is_taken() -> None:
    good, better = rollout(0.75, 0, "look"), rollout(1.0, 2, "take lamp", "drop lamp")
    shorter = rollout(1.0, 2, "take lamp", candidate=2)
    assert switches({"a": trajectory()}, [good, better, shorter], "better")["a"] is shorter
    early, late = rollout(1.0, 1, "look", "look"), rollout(1.0, 2, "look")
    assert switches({"a": trajectory()}, [early, late], "better")["a"] is early


def test_a_switched_trajectory_says_so() -> None:
    after = switched(trajectory(), rollout(1.0, 1, *SHORT[1:]))
    assert after.actions == SHORT and after.reward == 1.0 and after.success
    assert after.source == "gold; from step 1 on candidate 1 instead of the expert"


def straight() -> Rules:
    """A policy that goes the short way, and a base model that says yes to everything."""
    decides = [
        {"when": f"So I will {action}.", "replies": [f" would waste a turn. So I will {action}."]} for action in DETOUR
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
    """A run whose only expert trajectory looks around once too often."""
    write_rules(tmp_path / "rules.json", straight())
    run = make_run(tmp_path / "run", method__switch="shorter", sample__n=2)
    perform("collect", run, limit=1)
    known = msgspec.json.decode((run / "expert.jsonl").read_bytes(), type=Trajectory)
    look = Step(thought="", action="look", observation="This is the kitchen. There is a lamp.", score=0.25)
    longer = msgspec.structs.replace(known, steps=[known.steps[0], look, *known.steps[1:]])
    (run / "expert.jsonl").write_bytes(msgspec.json.encode(longer) + b"\n")
    accept_edit("collect", run)
    return run


def test_the_rest_of_a_trajectory_is_replaced(detour: Path) -> None:
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


def test_another_rule_makes_the_thoughts_stale(detour: Path) -> None:
    for stage in ("sample", "rollout", "critique"):
        perform(stage, detour)
    perform("synthesize", detour, method__switch="never")
    assert state("synthesize", detour, method__switch="never").kind == "done"
    assert state("synthesize", detour).kind == "stale"


def test_without_critique_the_actions_are_weighed_as_they_are(tmp_path: Path) -> None:
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
        "take lamp": [" look; (2) take lamp. With the first I lose time. So I will take lamp."],
        "go to hall": [" go to hall. There is only one way. So I will go to hall."],
    }
    rules: Rules = [{"when": f"beside: {action}", "replies": said} for action, said in replies.items()]
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


@pytest.mark.parametrize(
    ("reward", "end", "says"),
    [(1.0, "done", "advanced"), (0.25, "done", "hindered"), (0.25, "max_steps", "did not affect")],
)
def test_a_verdict_by_the_rewards_begins_the_critique(reward: float, end: Any, says: str) -> None:
    case = Case(ExpertStep(trajectory(1.0), 1), msgspec.structs.replace(rollout(reward, 1, "take lamp"), end=end))
    assert (
        critique_prompt(case, CritiqueSettings(verdict="reward"))[-1].content
        == f'With "take lamp" I {says} the task, because'
    )
    assert critique_prompt(case, CritiqueSettings())[-1].content == 'With "take lamp" I'


def test_a_guided_deliberation_says_of_every_candidate_what_its_critique_judged() -> None:
    class Base(ScriptedEngine):
        async def generate(self, messages: Sequence[Message], sampling: Sampling) -> list[Completion]:
            reply = " it is so" if messages[-1].content.endswith("because") else " So I will take lamp."
            return [Completion(reply, 3, "stop")]

    judged = {"look": "hindered", "take lamp": "advanced", "fly": "did not affect"}
    order = [Option(name, f"I {said} the task.") for name, said in judged.items()]
    asked = Question([Message("assistant", 'My options: (1) look; (2) take lamp; (3) fly. With "look" I')], order)
    written = asyncio.run(write_guided(Base([]), asked, Sampling(max_tokens=9)))
    assert written.finish == "stop"
    assert written.text == (
        " would hinder the task, because it is so."
        ' With "take lamp" I would advance the task, because it is so.'
        ' With "fly" I would not affect the task, because it is so. So I will take lamp.'
    )
    assert written.tokens == 12


@pytest.mark.parametrize("said", [Completion(" it is", 9, "length"), Completion(" .", 1, "stop")])
def test_a_guided_deliberation_with_a_sentence_that_came_to_nothing_is_refused(said: Completion) -> None:
    class Base(ScriptedEngine):
        async def generate(self, messages: Sequence[Message], sampling: Sampling) -> list[Completion]:
            return [said]

    order = [Option("look", "I hindered the task."), Option("take lamp", "I advanced the task.")]
    asked = Question([Message("assistant", 'My options: (1) look; (2) take lamp. With "look" I')], order)
    written = asyncio.run(write_guided(Base([]), asked, Sampling(max_tokens=9)))
    assert written.finish == "length"
    assert rejection_reason(written.text, written.finish, "take lamp", ["look", "take lamp"]) is not None


def test_where_the_expert_gets_nowhere_nothing_advances() -> None:
    case = Case(ExpertStep(trajectory(0.0), 1), rollout(0.0, 1, "take lamp"))
    assert "advanced" not in critique_prompt(case, CritiqueSettings(verdict="reward"))[-1].content


def test_guided_deliberations_need_samples(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="without sampling there are none"):
        start_run(tmp_path / "run", None, assigned(["method.without=sampling", "synthesize.form=guided"]))


def test_a_switch_needs_rollouts(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="compares rollouts"):
        start_run(tmp_path / "run", None, assigned(["method.without=critique", "method.switch=better"]))
    assert not (tmp_path / "run").exists()


def test_what_was_never_judged_is_not_in_d_delib(tmp_path: Path) -> None:
    """A flagged step that stays plain would teach the agent not to deliberate where it is of two minds."""
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


def test_what_machinery_failed_stays_in_d_delib_as_it_was(tmp_path: Path) -> None:
    """Of what was not asked for nothing is known; what failed would be gone from all later iterations."""
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


def test_d_delib_is_made_anew_from_the_thoughts_where_it_was_removed(detour: Path) -> None:
    for stage in ("sample", "rollout", "critique", "synthesize"):
        perform(stage, detour)
    made = (detour / "deliberations.jsonl").read_bytes()
    (detour / "deliberations.jsonl").unlink()
    perform("synthesize", detour)
    assert (detour / "deliberations.jsonl").read_bytes() == made


def test_how_many_are_proposed_is_part_of_the_ablation(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", method__without="sampling")
    perform("collect", run, limit=2)
    perform("synthesize", run, limit=1)
    assert state("synthesize", run, sample__n=2).kind == "stale"


def test_thoughts_that_were_kept_though_a_switch_came_later_decide_for_no_other_action() -> None:
    replaced = rollout(1.0, 1, "take lamp", "go to hall", "drop lamp")
    thoughts = [
        Thought(id="a", step=t, thought=f"So I will {action}.", attempts=1, rejected=[], tokens=1)
        for t, action in enumerate(DETOUR)
    ]
    after = deliberated(trajectory(), replaced, thoughts)
    assert [step.action for step in after.steps] == SHORT
    assert [step.deliberated for step in after.steps] == [True, False, False, False]
