"""Deliberated steps of an evaluation, taken without deliberating."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sandcli.engines.base import Completion, Sampling
from sandcli.engines.scripted import ScriptedEngine
from sandcli.errors import Exit, MachineryError, PrerequisiteError, UsageError
from sandcli.messages import Message
from tests.helpers import POLICY, Rules, artifact, lines, make_run, perform, state, turn, write_rules

WEIGHED = "My options: (1) look; (2) go to kitchen. The lamp is there. So I will"

RULES: Rules = [
    {"when": "lamp in hand.", "replies": [turn("There.", "drop lamp")]},
    {"when": "Observation: You take the lamp.", "replies": [turn("Back.", "go to hall")]},
    {"when": "Observation: You are in the garden.", "replies": ["Action: look"]},
    {"when": "Observation: You are in the kitchen.", "replies": [turn(f"{WEIGHED} take it.", "take lamp")]},
    {"when": POLICY, "replies": [turn(f"{WEIGHED} go.", "go to kitchen")]},
]
"""An agent that deliberates at the first two steps of four, and is lost in the garden."""

HASTY = {"You are in the kitchen.": " take lamp", POLICY: " go to garden"}
"""What it does if its turn begins with an action."""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_rules(tmp_path / "rules.json", RULES)
    hasty(monkeypatch, HASTY)
    settings: dict[str, Any] = {"eval__models": "base", "eval__splits": "seen", "env__step_limit": 5}
    return make_run(tmp_path / "run", **settings, run__retries=0)


def hasty(patch: pytest.MonkeyPatch, replies: dict[str, str]) -> None:
    """Let the scripted engine answer turns that begin with `Action:` by these replies; an empty one is a failure."""
    answer = ScriptedEngine.generate

    async def generate(self: ScriptedEngine, messages: Sequence[Message], sampling: Sampling) -> list[Completion]:
        if messages[-1].content != "Action:":
            return await answer(self, messages, sampling)
        text = "\n".join(message.content for message in messages)
        reply = next(reply for when, reply in replies.items() if when in text)
        if not reply:
            raise MachineryError("engine", "it is gone")
        return [Completion(reply, 2, "stop")]

    patch.setattr(ScriptedEngine, "generate", generate)


def test_step_is_taken_again_without_deliberating(run: Path) -> None:
    perform("eval", run, limit=1)
    made = perform("counterfactual", run, limit=1)
    first, second = lines(run / "counterfactuals.jsonl")
    assert (first["step"], first["action"], first["reward"]) == (0, "go to kitchen", 1.0)
    assert [step["action"] for step in first["steps"]] == ["go to garden", *["look"] * 4]
    assert (first["reward_without"], first["end"]) == (0.0, "max_steps")
    assert (second["step"], [step["action"] for step in second["steps"]]) == (1, ["take lamp"])
    assert (second["reward"], second["reward_without"], second["end"]) == (1.0, 1.0, "done")
    assert made.manifest is not None
    assert made.manifest.counts == {
        **{"units": 2, "failed": 0, "same_action": 1, "other_action": 1},
        **{"deliberating_earned_more": 1, "as_much": 0, "less": 0},
    }


def test_failed_step_is_taken_again_and_no_other(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    perform("eval", run, limit=1)
    with monkeypatch.context() as patch:
        hasty(patch, {**HASTY, "You are in the kitchen.": ""})
        assert perform("counterfactual", run, limit=1).exit is Exit.FAILED_UNITS
    begun = (run / "counterfactuals.jsonl.part").read_bytes()
    assert [record["step"] for record in lines(run / "counterfactuals.jsonl.part")] == [0]
    assert perform("counterfactual", run, limit=1).exit is Exit.DONE
    assert (run / "counterfactuals.jsonl").read_bytes().startswith(begun)
    assert state("counterfactual", run, limit=1).kind == "done"


@pytest.mark.slow
def test_more_episodes_add_units_and_keep_the_others(run: Path) -> None:
    perform("eval", run, limit=1)
    perform("counterfactual", run, limit=1)
    before = lines(run / "counterfactuals.jsonl")
    perform("eval", run, limit=3)
    assert state("counterfactual", run, limit=3)[:3] == ("wider", 2, 7)
    perform("counterfactual", run, limit=3)
    assert [record for record in lines(run / "counterfactuals.jsonl") if record["task"]["variation"] == 6] == before


def test_turn_without_an_action_is_not_replayed(run: Path) -> None:
    confused = [*RULES[:-1], {"when": "Invalid format", "replies": RULES[-1]["replies"]}]
    write_rules(run.parent / "rules.json", [*confused, {"when": POLICY, "replies": ["Where am I?"]}])
    perform("eval", run, limit=1)
    assert perform("counterfactual", run, limit=1).exit is Exit.DONE
    assert [record["step"] for record in lines(run / "counterfactuals.jsonl")] == [1, 2]


def test_weights_that_did_not_play_the_episodes_are_refused(run: Path) -> None:
    perform("eval", run, limit=1)
    write_rules(run.parent / "rules.json", [*RULES, {"when": "nothing", "replies": [""]}])
    with pytest.raises(PrerequisiteError, match="base was trained again after its episodes were played") as caught:
        perform("counterfactual", run, limit=1)
    assert caught.value.fix == f"sand eval --run {run} --models base --force"
    assert not artifact(run, "counterfactual").begun()


def test_agent_that_never_deliberates_leaves_nothing_to_do(run: Path) -> None:
    write_rules(run.parent / "rules.json", [{"when": POLICY, "replies": ["Action: look"]}])
    perform("eval", run, limit=1)
    assert perform("counterfactual", run, limit=1).exit is Exit.DONE
    assert artifact(run, "counterfactual").path.read_bytes() == b""


def test_without_a_freely_played_episode_there_is_an_error_with_a_fix(run: Path) -> None:
    perform("eval", run, limit=1, eval__deliberation=["never"])
    with pytest.raises(UsageError, match="holds no freely played episode of base on seen") as caught:
        perform("counterfactual", run, limit=1)
    assert caught.value.fix.endswith("--models base --splits seen --deliberation free")
