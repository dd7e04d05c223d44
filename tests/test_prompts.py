"""The sets of questions to the base model, and the user's own folder."""

import re
from pathlib import Path

import pytest

from sandcli.agent.form import is_deliberation, opening
from sandcli.agent.turns import parse
from sandcli.errors import UsageError
from sandcli.messages import Message
from sandcli.method.acceptance import rejection_reason
from sandcli.method.knowagent import has_action_path
from sandcli.prompts import SETS, Prompts, action_knowledge, load

QUESTIONS = ("critique", "deliberate", "compare", "propose", "reflect", "think", "lesson", "state", "know")

VALUES = dict.fromkeys(
    (
        *("instruction", "history", "action", "observation", "rollout", "ending", "verdict", "candidates", "others"),
        *("expert", "expert_reward", "attempt", "reward"),
    ),
    "x",
) | {"opening": "My options: (1) x.", "first": "x"}


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("question", QUESTIONS)
def test_question_alternates_between_user_and_assistant(name: str, question: str) -> None:
    system, *messages = Prompts(name).fill(question, **VALUES)
    assert system.role == "system"
    assert [message.role for message in messages] == (["user", "assistant"] * len(messages))[: len(messages)]
    assert not any("{" in message.content for message in messages)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("question", ("deliberate", "compare", "propose", "reflect"))
def test_worked_example_passes_the_checks_of_a_deliberation(name: str, question: str) -> None:
    """The model imitates its examples."""
    examples = [
        message.content for message in Prompts(name).fill(question, **VALUES)[:-2] if message.role == "assistant"
    ]
    assert len(examples) >= 2
    for example in examples:
        assert is_deliberation(example)
        listed = example.removeprefix("My options: ").partition(". ")[0].split("; ")
        actions = [option.partition(") ")[2] for option in listed]
        text = example.removeprefix(opening(actions))
        decided = text.rpartition("So I will ")[2].rstrip(".")
        assert rejection_reason(text, "stop", decided, actions) is None


def test_own_folder_replaces_the_questions_that_it_holds(tmp_path: Path) -> None:
    (tmp_path / "think.md").write_bytes("\ufeff# user\nWhy {action}?\n".encode())
    own = Prompts(str(tmp_path))
    assert own.fill("think", action="look", history="", instruction="") == [Message("user", "Why look?")]
    assert own.load("critique") == Prompts("standard").load("critique")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Why {reason}?", "asks nothing"),
        ("# system\nThink.", "asks nothing"),
        ("# user\nWhy {reason}?", r"no value for \{reason\}"),
        (b"# user\n\xff", "cannot be read"),
    ],
)
def test_unusable_file_of_the_user_is_one_clear_error(tmp_path: Path, text: str | bytes, says: str) -> None:
    (tmp_path / "think.md").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=says) as error:
        Prompts(str(tmp_path)).fill("think", action="look")
    assert "think.md" in str(error.value)


def test_unknown_set_is_refused() -> None:
    with pytest.raises(UsageError, match="no folder 'small'"):
        Prompts("small").load("think")


def following(text: str) -> dict[str, list[str]]:
    """Which kinds of action may follow which, in rules of actions."""
    after: dict[str, list[str]] = {}
    for left, _, right in (line.partition(" -> ") for line in text.splitlines() if re.match(r"[a-z, ]+ -> ", line)):
        after |= {kind: right.split(", ") for kind in left.split(", ")}
    return after


@pytest.mark.parametrize("world", ["alfworld", "scienceworld"])
def test_examples_of_action_knowledge_keep_to_its_rules(world: str) -> None:
    """The model imitates them: their turns can be read, and their paths hold the actions that were taken, in order."""
    text = action_knowledge("world", world)
    after = following(text)
    examples = text.split(" example\nTask: ")[1:]
    assert len(examples) == 2
    for example in examples:
        path = ["start"]
        for said in (part for part in example.split("\n\n") if part.startswith("Thought: ")):
            turn = parse(said)
            assert turn is not None and has_action_path(turn.thought)
            assert turn.thought.startswith(f"ActionPath: {' -> '.join(path)}\n")
            kind = max((known for known in after if turn.action.startswith(known)), key=len)
            assert kind in after[path[-1]] or "look" in path[-1]  # any action may follow a look
            path.append(kind)
        assert len(path) > 4


@pytest.mark.parametrize("world", ["alfworld", "scienceworld"])
def test_rules_of_actions_name_those_of_the_instruction(world: str) -> None:
    kinds = set(following(action_knowledge("world", world))) - {"start"}
    assert [kind for kind in kinds if kind not in load(f"{world}/instruction")] == []


def test_action_knowledge_of_another_world_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "rules.md").write_text("start -> look\n")
    assert action_knowledge(str(tmp_path / "rules.md"), "own:World") == "start -> look"
    with pytest.raises(UsageError, match="there are no rules of actions for own:World") as caught:
        action_knowledge("world", "own:World")
    assert "set agent.knowledge" in caught.value.fix
    with pytest.raises(UsageError, match=r"absent\.md cannot be read"):
        action_knowledge(str(tmp_path / "absent.md"), "own:World")
