"""The text an agent reads and writes: turns, actions, conversations, and what counts as a deliberation.

An agent's turn is `Thought: ...` and `Action: ...` on a line of its own, or the action alone.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sandcli.messages import Message
from sandcli.records import Step

INVALID_TURN = "Invalid format. Answer with 'Action:' and one action."
"""What the agent is told when its turn holds no action; the world is not touched."""

_TURN = re.compile(
    r"\s*(?:Thought:[ \t]*(?P<thought>.*?))?\s*^[ \t]*Action:[ \t]*(?P<action>[^\n]*)",
    re.DOTALL | re.MULTILINE,
)
_ACTION_LINE = re.compile(r"^[ \t]*Action:", re.MULTILINE)
_OPTION = re.compile(r"\((\d+)\)\s+\S")
_OPENING = "My options:"
_MARKS = "\"'` "


class Turn(NamedTuple):
    """What the agent said: `thought` may be empty."""

    thought: str
    action: str


def parse(text: str) -> Turn | None:
    """Read an agent's turn; None where it holds no action. Whatever follows the first action line is ignored."""
    match = _TURN.match(text)
    if match is None or not normalise(match["action"]):
        return None
    return Turn((match["thought"] or "").strip(), match["action"].strip())


def render(thought: str, action: str) -> str:
    """The text of a turn; the inverse of `parse`."""
    return f"Thought: {thought}\nAction: {action}" if thought else f"Action: {action}"


def normalise(action: str) -> str:
    """The form in which actions are compared, counted and executed.

    White space is folded, case lowered, and quotes, back-ticks and a closing full stop are dropped: text worlds
    do not tell these apart, or reject the command for them alone.
    """
    return " ".join(action.split()).strip(_MARKS).rstrip(f".{_MARKS}").lower()


def has_action_line(text: str) -> bool:
    """Whether a thought contains a line that would be read as an action."""
    return _ACTION_LINE.search(text) is not None


def observed(text: str) -> str:
    """An observation as the agent reads it."""
    return f"Observation: {text}"


def conversation(system: str, instruction: str, steps: Iterable[Step]) -> list[Message]:
    """The history h_t = (u, z_1, a_1, o_1, ..., o_t) as messages, ready for the agent's next turn."""
    messages = [Message("system", system), Message("user", instruction)]
    for step in steps:
        messages += turn_messages(step)
    return messages


def turn_messages(step: Step) -> list[Message]:
    """One step as two messages: the agent's turn and the observation.

    White space around the turn is left out: some chat templates trim it (Llama-3's), others keep it, and the turn
    that is trained on must be the one that is read later.
    """
    thought, action = step.thought.strip(), step.action.strip()
    said = render(thought, action) if action else thought
    return [Message("assistant", said), Message("user", observed(step.observation))]


def deliberation_opening(actions: Sequence[str]) -> str:
    """How every deliberation thought starts: `My options: (1) look around; (2) go to kitchen.`

    With no actions it ends where the first is to be named.
    """
    if not actions:
        return f"{_OPENING} (1)"
    options = "; ".join(f"({number}) {action}" for number, action in enumerate(actions, 1))
    return f"{_OPENING} {options}."


def options_of(thought: str) -> list[str]:
    """The actions that a deliberation lists at its start."""
    listed = thought.lstrip().removeprefix(_OPENING).partition(".")[0]
    return [normalise(part) for part in re.split(r";?\s*\(\d+\)\s+", listed) if normalise(part)]


def is_deliberation(thought: str) -> bool:
    """Whether a thought weighs alternatives: it starts with `My options:` and lists two or more, (1), (2), ...

    This is the definition behind every deliberation rate that is reported. It looks at the form a trained
    agent has learned to write, not at how good the weighing is.
    """
    if not thought.lstrip().startswith(_OPENING):
        return False
    return {"1", "2"} <= set(_OPTION.findall(thought))
