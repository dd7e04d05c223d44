"""Episodes as conversations: what the agent is shown before each turn, and what it is trained on."""

from collections.abc import Iterable, Sequence

from sandcli.agent.turns import render
from sandcli.episodes import GivenPlan
from sandcli.messages import Message, as_messages
from sandcli.records import Pair, Step, Trajectory

STOP = ("\nObservation:",)
"""Generation stops here if an agent starts to invent the world's answer."""


def conversation(preamble: Sequence[Message], instruction: str, steps: Iterable[Step]) -> list[Message]:
    """The history h_t = (u, z_1, a_1, o_1, ..., o_t) as messages, ready for the agent's next turn."""
    turns = (message for step in steps for message in turn_messages(step))
    return after_preamble(preamble, [Message("user", instruction), *turns])


def with_plan(instruction: str, plan: GivenPlan | None) -> str:
    """The task as an agent reads it that is given a plan; the instruction alone if there is none, or it is empty."""
    return f"{instruction}\n\nThis plan may help you:\n{plan.text}" if plan and plan.text else instruction


def pair_prompt(preamble: Sequence[Message], pair: Pair) -> list[Message]:
    """What comes before both sides of a pair. A planner's question has no preamble."""
    prompt = as_messages(pair.prompt)
    return prompt if pair.chosen_from == "plan" else after_preamble(preamble, prompt)


def after_preamble(preamble: Sequence[Message], messages: Sequence[Message]) -> list[Message]:
    """The preamble, and a conversation that begins with the instruction.

    If the preamble ends with a user message, the instruction is in the same message, after a blank line, or directly
    after a line break with which the message ends.
    """
    if not preamble or preamble[-1].role != "user":
        return [*preamble, *messages]
    before, instruction = preamble[-1].content, messages[0].content
    gap = "" if before.endswith("\n") else "\n\n"
    return [*preamble[:-1], Message("user", f"{before}{gap}{instruction}"), *messages[1:]]


def turn_messages(step: Step) -> list[Message]:
    """One step as two messages: the agent's turn and the observation.

    White space around the turn is removed: some chat templates trim it (Llama-3) and others keep it, and the turn that
    is trained on must equal the turn that is read later.
    """
    thought, action = step.thought.strip(), step.action.strip()
    said = render(thought, action) if action else thought
    return [Message("assistant", said), Message("user", f"Observation: {step.observation}")]


def training_messages(preamble: Sequence[Message], trajectory: Trajectory) -> list[Message]:
    """The conversation to train on. It ends with the agent's last turn."""
    return conversation(preamble, trajectory.instruction, trajectory.steps)[:-1]
