"""What the agent is shown before each turn."""

import pytest

from sandcli.agent.conversation import conversation
from sandcli.messages import Message
from sandcli.records import Step

ASKED, OK = Message("user", "You act."), Message("assistant", "OK")


def test_conversation_alternates_turns_and_observations() -> None:
    steps = [
        Step(thought="I look.", action="look", observation="A hall.", score=0.0),
        Step(thought="", action="go", observation="You go.", score=0.5),
        Step(thought="Hm?", action="", observation="Invalid.", score=0.5),
    ]
    assert conversation([Message("system", "rules")], "the task", steps) == [
        Message("system", "rules"),
        Message("user", "the task"),
        Message("assistant", "Thought: I look.\nAction: look"),
        Message("user", "Observation: A hall."),
        Message("assistant", "Action: go"),
        Message("user", "Observation: You go."),
        Message("assistant", "Hm?"),
        Message("user", "Observation: Invalid."),
    ]


@pytest.mark.parametrize(
    ("preamble", "begins"),
    [
        ([], [Message("user", "the task")]),
        ([Message("system", "rules")], [Message("system", "rules"), Message("user", "the task")]),
        ([ASKED, OK], [ASKED, OK, Message("user", "the task")]),
        ([ASKED], [Message("user", "You act.\n\nthe task")]),
        ([Message("user", "You act.\n")], [Message("user", "You act.\nthe task")]),
        ([ASKED, OK, Message("user", "Now:\n")], [ASKED, OK, Message("user", "Now:\nthe task")]),
    ],
)
def test_task_follows_the_preamble(preamble: list[Message], begins: list[Message]) -> None:
    before = list(preamble)
    assert conversation(preamble, "the task", []) == begins
    assert preamble == before
