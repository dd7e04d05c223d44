"""Algorithm 1 by hand: one trajectory of three steps, every record written down here field by field.

The policy is inconsistent at the first step, unreadable once at the second, and consistent at the third. The
first step's deliberation fails the checks once, stops short, and is asked to conclude; those of the second step all
fail, so that it keeps its thought.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from sandcli.agent.conversation import turn_messages
from sandcli.core.context import Context
from sandcli.core.store import Journal
from sandcli.engines.scripted import ScriptedEngine
from sandcli.messages import Message
from sandcli.records import Step, Task, Trajectory
from sandcli.settings import AgentSettings
from tests.helpers import POLICY, Rules, make_run, perform, write_rules
from tests.toyworld import SYSTEM

INSTRUCTION = "Bring the lamp from the kitchen to the hall. (House 0.)"

RULES: Rules = [
    {"when": "I have what I need. So I will", "replies": [" take lamp. Then I rest."] * 2},
    {
        "when": "So I will take lamp.",
        "replies": [
            " saw what the expert saw. So I will take lamp.",
            " would see the room, which can wait. With (2) I have what I need.",
        ],
    },
    {
        "when": "So I will go to hall.",
        "replies": [
            " could go to hall. So I will eat lamp.",
            " am sure. So I will eat lamp.",
            " say Action: go to hall. So I will go to hall.",
        ],
    },
    {"when": 'With "take lamp" I', "replies": [" advanced the task. Take first. Carry then. Drop last."]},
    {"when": 'With "look" I', "replies": [" did not affect the task"]},
    {"when": 'With "go to hall" I', "replies": [" advanced the task."]},
    {"when": 'With "eat lamp" I', "replies": [" hindered the task! Lamps\n are no food."]},
    {
        "when": "lamp in hand.",
        "replies": ["Thought: Here.\nAction: Drop  lamp.", "Action: drop lamp", "Action: `drop lamp`"],
    },
    {
        "when": "Observation: You take the lamp.",
        "replies": ["Thought: Off.\nAction: go to hall", "Thought: It smells good.\nAction: eat lamp", "I wonder."],
    },
    {
        "when": POLICY,
        "replies": ["Thought: Where am I?\nAction: Look.", "Thought: Mine.\nAction: take lamp", "Action: look"],
    },
]


def step(thought: str, action: str, observation: str, score: float, deliberated: bool = False) -> dict[str, Any]:
    fields = {"thought": thought, "action": action, "observation": observation, "score": score}
    return {**fields, "deliberated": deliberated}


TAKE = step("The lamp is here.", "take lamp", "You take the lamp.", 0.5)
GO = step("Now to the hall.", "go to hall", "You are in the hall, lamp in hand.", 0.75)
DROP = step("I let go.", "drop lamp", "You drop the lamp.", 1.0)
LOOK = step("Where am I?", "look", "This is the kitchen. There is a lamp.", 0.25)


def trajectory(steps: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": "carry_0",
        "env": "toyworld",
        "task": {"name": "carry", "variation": 0},
        "instruction": INSTRUCTION,
        "steps": steps,
        "reward": 1.0,
        "success": True,
        "source": "hand",
    }


SAMPLES = [
    {
        "id": "carry_0",
        "step": 0,
        "expert_action": "take lamp",
        "samples": [
            {"thought": "Where am I?", "action": "Look.", "tokens": 6},
            {"thought": "Mine.", "action": "take lamp", "tokens": 5},
            {"thought": "", "action": "look", "tokens": 2},
        ],
        "drawn": 3,
        "unparsable": 0,
        "candidates": [{"action": "take lamp", "count": 1}, {"action": "look", "count": 2}],
        "deliberate": True,
    },
    {
        "id": "carry_0",
        "step": 1,
        "expert_action": "go to hall",
        "samples": [
            {"thought": "Off.", "action": "go to hall", "tokens": 6},
            {"thought": "It smells good.", "action": "eat lamp", "tokens": 7},
        ],
        "drawn": 3,
        "unparsable": 1,
        "candidates": [{"action": "go to hall", "count": 1}, {"action": "eat lamp", "count": 1}],
        "deliberate": True,
    },
    {
        "id": "carry_0",
        "step": 2,
        "expert_action": "drop lamp",
        "samples": [
            {"thought": "Here.", "action": "Drop  lamp.", "tokens": 5},
            {"thought": "", "action": "drop lamp", "tokens": 3},
            {"thought": "", "action": "`drop lamp`", "tokens": 3},
        ],
        "drawn": 3,
        "unparsable": 0,
        "candidates": [{"action": "drop lamp", "count": 3}],
        "deliberate": False,
    },
]

ROLLOUTS = [
    {
        "id": "carry_0",
        "step": 0,
        "candidate": 0,
        "action": "take lamp",
        "thought": "The lamp is here.",
        "expert": True,
        "count": 1,
        "steps": [TAKE, GO, DROP],
        "reward": 1.0,
        "success": True,
        "end": "done",
        "tokens": 0,
    },
    {
        "id": "carry_0",
        "step": 0,
        "candidate": 1,
        "action": "look",
        "thought": "Where am I?",
        "expert": False,
        "count": 2,
        "steps": [
            LOOK,
            LOOK,
            step("Mine.", "take lamp", "You take the lamp.", 0.5),
            step("I wonder.", "", AgentSettings().invalid_message, 0.5),
            step("Off.", "go to hall", "You are in the hall, lamp in hand.", 0.75),
            step("", "drop lamp", "You drop the lamp.", 1.0),
        ],
        "reward": 1.0,
        "success": True,
        "end": "done",
        "tokens": 6 + 5 + 2 + 6 + 3,
    },
    {
        "id": "carry_0",
        "step": 1,
        "candidate": 0,
        "action": "go to hall",
        "thought": "Now to the hall.",
        "expert": True,
        "count": 1,
        "steps": [GO, DROP],
        "reward": 1.0,
        "success": True,
        "end": "done",
        "tokens": 0,
    },
    {
        "id": "carry_0",
        "step": 1,
        "candidate": 1,
        "action": "eat lamp",
        "thought": "It smells good.",
        "expert": False,
        "count": 1,
        "steps": [step("It smells good.", "eat lamp", "You eat the lamp. That is the end of it.", 0.0)],
        "reward": 0.5,
        "success": False,
        "end": "done",
        "tokens": 0,
    },
]


def critique(number: int, candidate: int, action: str, reward: float, text: str, tokens: int) -> dict[str, Any]:
    place = {"id": "carry_0", "step": number, "candidate": candidate}
    return {**place, "action": action, "reward": reward, "critique": text, "tokens": tokens}


CRITIQUES = [
    critique(0, 0, "take lamp", 1.0, 'With "take lamp" I advanced the task. Take first. Carry then.', 9),
    critique(0, 1, "look", 1.0, 'With "look" I did not affect the task', 5),
    critique(1, 0, "go to hall", 1.0, 'With "go to hall" I advanced the task.', 3),
    critique(1, 1, "eat lamp", 0.5, 'With "eat lamp" I hindered the task! Lamps are no food.', 7),
]

DELIBERATION = (
    'My options: (1) look; (2) take lamp. With "look" I would see the room, which can wait. '
    "With (2) I have what I need. So I will take lamp."
)

THOUGHTS = [
    {
        "id": "carry_0",
        "step": 0,
        "thought": DELIBERATION,
        "attempts": 2,
        "rejected": ["mentions what the agent cannot know"],
        "tokens": 10 + 14 + 5,
        "candidate": 0,
    },
    {
        "id": "carry_0",
        "step": 1,
        "thought": "",
        "attempts": 3,
        "rejected": [
            "does not end in the expert's action",
            "does not end in the expert's action",
            "contains an action line",
        ],
        "tokens": 9 + 7 + 11,
        "candidate": 0,
    },
]


def by_hand(self: Context, *key: str | int) -> int:
    """The first reply first; later turns and attempts get the next ones; of two options, the expert's comes last."""
    return int(key[-1]) if key[0] in ("rollout", "synthesize") else 0


def written(path: Path) -> list[str]:
    return path.read_text().splitlines()


def expected(records: list[dict[str, Any]]) -> list[str]:
    """The lines of a file: fields in this order, nothing else."""
    return [json.dumps(record, separators=(",", ":"), ensure_ascii=False) for record in records]


def test_algorithm_1_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rules(tmp_path / "rules.json", RULES)
    root = make_run(tmp_path / "run", env__tasks="carry", sample__n=3)
    journal = Journal(root / "expert.jsonl", Trajectory)
    steps = [Step(**fields) for fields in (TAKE, GO, DROP)]
    expert = trajectory([TAKE, GO, DROP])
    journal.append(Trajectory(**{**expert, "steps": steps, "task": Task(name="carry", variation=0)}))
    journal.close()
    assert written(root / "expert.jsonl") == expected([expert])
    prompts: list[list[Message]] = []
    generate = ScriptedEngine.generate

    async def heard(self: ScriptedEngine, messages: list[Message], sampling: Any) -> Any:
        prompts.append(messages)
        return await generate(self, messages, sampling)

    monkeypatch.setattr(Context, "seed", by_hand)
    monkeypatch.setattr(ScriptedEngine, "generate", heard)

    perform("sample", root)
    assert written(root / "samples.jsonl") == expected(SAMPLES)
    begin = [Message("system", SYSTEM), Message("user", INSTRUCTION)]
    assert sorted(prompts, key=len) == [
        begin,
        [*begin, *turn_messages(steps[0])],
        [*begin, *turn_messages(steps[0]), *turn_messages(steps[1])],
    ]
    perform("rollout", root)
    assert written(root / "rollouts.jsonl") == expected(ROLLOUTS)
    perform("critique", root)
    assert written(root / "critiques.jsonl") == expected(CRITIQUES)
    perform("synthesize", root)
    assert written(root / "thoughts.jsonl") == expected(THOUGHTS)
    deliberated = {**TAKE, "thought": DELIBERATION, "deliberated": True}
    assert written(root / "deliberations.jsonl") == expected([trajectory([deliberated, GO, DROP])])
