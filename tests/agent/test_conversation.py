"""What the agent is shown before each turn."""

from sandcli.agent.conversation import conversation
from sandcli.messages import Message
from sandcli.records import Step


def test_conversation_alternates_turns_and_observations() -> None:
    steps = [
        Step(thought="I look.", action="look", observation="A hall.", score=0.0),
        Step(thought="", action="go", observation="You go.", score=0.5),
        Step(thought="Hm?", action="", observation="Invalid.", score=0.5),
    ]
    assert conversation("rules", "the task", steps) == [
        Message("system", "rules"),
        Message("user", "the task"),
        Message("assistant", "Thought: I look.\nAction: look"),
        Message("user", "Observation: A hall."),
        Message("assistant", "Action: go"),
        Message("user", "Observation: You go."),
        Message("assistant", "Hm?"),
        Message("user", "Observation: Invalid."),
    ]
