"""How an episode ends, what it costs, and how its turns are drawn."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from sandcli.agent.episode import Played, play
from sandcli.engines.base import Completion, Sampling
from sandcli.engines.scripted import ScriptedEngine
from sandcli.envs.base import Outcome
from sandcli.envs.pool import Session
from sandcli.errors import ContextOverflow, MachineryError
from sandcli.messages import Message
from sandcli.records import Step
from sandcli.settings import AgentSettings
from tests.helpers import POLICY, Rules, lines, make_run, perform, rules, write_rules

HISTORY = [Message("system", "rules"), Message("user", "the task")]


class Parrot:
    """An engine that gives one text after the other; it raises an exception among them."""

    def __init__(self, *texts: str | Exception) -> None:
        self._texts = list(texts)
        self.prompts: list[list[Message]] = []
        self.samplings: list[Sampling] = []

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> list[Completion]:
        self.prompts.append(list(messages))
        self.samplings.append(sampling)
        text = self._texts.pop(0)
        if isinstance(text, Exception):
            raise text
        return [Completion(text, 10, "stop")]


class Hall:
    """A session in which `win` ends the episode and `fly` is unknown."""

    def __init__(self) -> None:
        self.score = 0.25
        self.actions: list[str] = []

    async def step(self, action: str) -> Outcome:
        self.actions.append(action)
        self.score = 1.0 if action == "win" else self.score
        return Outcome(f"You {action}.", self.score, action == "win", action != "fly")


LIMITED = AgentSettings(max_invalid=3)


def played(
    *texts: str | Exception, steps: int = 9, settings: AgentSettings = LIMITED, opening: str = ""
) -> tuple[Played, Parrot, Hall]:
    engine, hall = Parrot(*texts), Hall()
    session = cast(Session, hall)
    done = play(cast(Any, engine), session, HISTORY, lambda turn: Sampling(seed=turn), steps, settings, opening)
    return asyncio.run(done), engine, hall


def test_episode_ends_with_its_task() -> None:
    found, engine, _ = played("Thought: I look.\nAction: `Look`.", "Action: win", "Action: look")
    assert found.end == "done"
    assert found.tokens == 20
    assert found.steps == [
        Step(thought="I look.", action="look", observation="You look.", score=0.25),
        Step(thought="", action="win", observation="You win.", score=1.0),
    ]
    assert engine.prompts[1] == [
        *HISTORY,
        Message("assistant", "Thought: I look.\nAction: look"),
        Message("user", "Observation: You look."),
    ]
    assert [sampling.seed for sampling in engine.samplings] == [0, 1]


def test_episode_ends_at_the_step_limit() -> None:
    found, engine, _ = played(*["Action: look"] * 9, steps=4)
    assert (found.end, len(found.steps), len(engine.prompts)) == ("max_steps", 4, 4)


def test_episode_without_steps_left_asks_nothing() -> None:
    found, engine, _ = played("Action: look", steps=0)
    assert found == Played([], "max_steps", 0)
    assert engine.prompts == []


def test_invalid_actions_in_a_row_end_an_episode() -> None:
    texts = ["Action: fly", "Action: fly", "Action: look", "Action: fly", "Hm?", "Action: fly", "Action: win"]
    found, _, hall = played(*texts)
    assert (found.end, len(found.steps)) == ("invalid_actions", 6)
    assert hall.actions == ["fly", "fly", "look", "fly", "fly"]


FLY, MUMBLE, LOOK = "Action: fly", "Hm?", "Action: look"


@pytest.mark.parametrize(
    ("settings", "texts", "taken"),
    [
        (AgentSettings(max_invalid=0), [FLY, MUMBLE] * 4, None),
        (AgentSettings(max_invalid=1), [LOOK, MUMBLE, LOOK], 2),
        (AgentSettings(max_invalid=2, invalid="action"), [FLY, MUMBLE, FLY, LOOK], 3),  # neither counts nor resets
        (AgentSettings(max_invalid=2, invalid="action"), [FLY, LOOK, FLY, MUMBLE, MUMBLE], None),
        (AgentSettings(max_invalid=2, invalid="turn"), [FLY, FLY, MUMBLE, FLY, MUMBLE, LOOK], 5),
        (AgentSettings(max_invalid=2, invalid="turn"), [FLY, FLY, MUMBLE, LOOK, MUMBLE], None),
        (AgentSettings(max_invalid=2, invalid="any"), [FLY, MUMBLE, LOOK], 2),
    ],
)
def test_setting_says_which_invalid_turns_end_an_episode(
    settings: AgentSettings, texts: list[str], taken: int | None
) -> None:
    found, _, _ = played(*texts, steps=len(texts), settings=settings)
    assert (found.end, len(found.steps)) == (("invalid_actions", taken) if taken else ("max_steps", len(texts)))


def test_settings_of_a_turn_decide_how_it_is_read_and_what_an_invalid_one_is_told() -> None:
    inline = AgentSettings(inline=True, invalid_message="Again, please.")
    found, _, hall = played("Thought: Now. Action: look", "Hm?", "Action: win", settings=inline)
    assert [step.thought for step in found.steps] == ["Now.", "Hm?", ""] and hall.actions == ["look", "win"]
    assert found.steps[1].observation == "Again, please."
    found, _, hall = played("Thought: Now. Action: look", "Action: win")
    assert hall.actions == ["win"]


def test_turn_without_an_action_costs_a_step_and_does_not_touch_the_world() -> None:
    found, engine, hall = played(" Hm? ", "Action: win")
    assert found.steps[0] == Step(thought="Hm?", action="", observation=AgentSettings().invalid_message, score=0.25)
    assert hall.actions == ["win"]
    said = Message("user", "Observation: Invalid format. Answer with 'Action:' and one action.")
    assert engine.prompts[1][2:] == [Message("assistant", "Hm?"), said]


def test_full_context_ends_an_episode_without_a_failure() -> None:
    found, _, _ = played("Action: look", ContextOverflow(9, 8))
    assert (found.end, len(found.steps), found.tokens) == ("context", 1, 10)


def test_engine_failure_is_raised() -> None:
    with pytest.raises(MachineryError, match="out of order"):
        played("Action: look", MachineryError("engine", "out of order"))


def test_deliberation_is_marked() -> None:
    found, _, _ = played("Thought: My options: (1) look; (2) win. I win.\nAction: win")
    assert [step.deliberated for step in found.steps] == [True]


def test_prefix_counts_towards_the_step_limit(tmp_path: Path) -> None:
    idle = [rule for rule in rules() if rule["when"] == POLICY]
    idle[0]["replies"] = ["Action: look"]
    write_rules(tmp_path / "rules.json", idle)
    root = make_run(tmp_path / "run", env__step_limit=4)
    for stage in ("collect", "sample", "rollout", "eval"):
        perform(stage, root, limit=1)
    rollouts = [line for line in lines(root / "rollouts.jsonl") if not line["expert"]]
    assert [(line["step"], len(line["steps"]), line["end"]) for line in rollouts] == [
        (step, 4 - step, "max_steps") for step in range(4)
    ]
    assert [(len(line["steps"]), line["end"]) for line in lines(root / "eval.jsonl")] == [(4, "max_steps")] * 2


@pytest.mark.slow
def test_temperatures_are_those_of_the_paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate = ScriptedEngine.generate
    seen: list[Sampling] = []

    async def heard(self: ScriptedEngine, messages: Sequence[Message], sampling: Sampling) -> list[Completion]:
        seen.append(sampling)
        return await generate(self, messages, sampling)

    monkeypatch.setattr(ScriptedEngine, "generate", heard)
    root = make_run(tmp_path / "run", collect__thoughts="base")
    drawn = {}
    for stage in ("collect", "sample", "rollout", "critique", "synthesize", "eval"):
        seen.clear()
        perform(stage, root, limit=2)
        drawn[stage] = {(sampling.n, sampling.temperature) for sampling in seen}
    again = drawn["synthesize"].difference({(1, 0.0)})
    assert len(again) == 1
    assert again.pop()[1] > 0
    assert drawn == {
        "collect": {(1, 0.0)},
        "sample": {(5, 1.0)},
        "rollout": {(1, 1.0)},
        "critique": {(1, 0.0)},
        "synthesize": drawn["synthesize"],
        "eval": {(1, 0.0)},
    }
    assert (1, 0.0) in drawn["synthesize"]


def test_thought_of_an_expert_is_one_sentence_or_none(tmp_path: Path) -> None:
    said = {
        "go to kitchen": "and on and on and on and on and on and on and on and on and on and on.",
        "take lamp": "Thought: I want the lamp. It is dark.",
        "go to hall": "I go.",
        "drop lamp": "Action: drop lamp",
    }
    content: Rules = [{"when": f"Next action: {action}", "replies": [text]} for action, text in said.items()]
    write_rules(tmp_path / "rules.json", content)
    root = make_run(tmp_path / "run", collect__thoughts="base")
    perform("collect", root, limit=1)
    (line,) = lines(root / "expert.jsonl")
    assert [step["thought"] for step in line["steps"]] == ["", "I want the lamp.", "I go.", ""]
    assert line["source"] == "gold, thoughts base"


def test_reward_of_an_episode_is_its_best_score(tmp_path: Path) -> None:
    ways = {"You take the lamp.": "eat lamp", "You are in the kitchen.": "take lamp", POLICY: "go to kitchen"}
    content: Rules = [{"when": when, "replies": [f"Action: {action}"]} for when, action in ways.items()]
    write_rules(tmp_path / "rules.json", content)
    root = make_run(tmp_path / "run", eval__splits="seen")
    perform("eval", root, limit=1)
    (episode,) = lines(root / "eval.jsonl")
    assert [step["score"] for step in episode["steps"]] == [0.25, 0.5, 0.0]
    assert (episode["reward"], episode["success"], episode["end"]) == (0.5, False, "done")


def test_every_turn_begins_with_the_opening() -> None:
    found, engine, _ = played(" look", " win", opening="Action:")
    assert [step.action for step in found.steps] == ["look", "win"]
    assert [prompt[-1] for prompt in engine.prompts] == [Message("assistant", "Action:")] * 2
    assert engine.prompts[1][2:4] == [Message("assistant", "Action: look"), Message("user", "Observation: You look.")]
