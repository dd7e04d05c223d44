"""The sets of questions to the base model, and the user's own folder."""

from pathlib import Path

import pytest

from sandcli.agent.form import is_deliberation, opening
from sandcli.errors import UsageError
from sandcli.messages import Message
from sandcli.method.acceptance import rejection_reason
from sandcli.prompts import SETS, Prompts

QUESTIONS = ("critique", "deliberate", "compare", "propose", "think")

VALUES = dict.fromkeys(
    ("instruction", "history", "action", "observation", "rollout", "ending", "verdict", "candidates", "others"), "x"
) | {"opening": "My options: (1) x.", "first": "x"}


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("question", QUESTIONS)
def test_question_alternates_between_user_and_assistant(name: str, question: str) -> None:
    system, *messages = Prompts(name).fill(question, **VALUES)
    assert system.role == "system"
    assert [message.role for message in messages] == (["user", "assistant"] * len(messages))[: len(messages)]
    assert not any("{" in message.content for message in messages)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("question", ("deliberate", "compare", "propose"))
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
