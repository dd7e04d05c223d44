"""An agent's turn as text: `Thought: ...`, then `Action: ...` on a line of its own, or the action alone."""

import re
from typing import NamedTuple

_ACTION_LINE = re.compile(r"^[ \t]*Action:([^\n]*)", re.MULTILINE)
_THOUGHT = "Thought:"
_MARKS = "\"'` "


class Turn(NamedTuple):
    """What the agent said. `thought` may be empty."""

    thought: str
    action: str


def parse(text: str) -> Turn | None:
    """Read an agent's turn; None if it holds no action. Everything after the first action line is ignored."""
    line = _ACTION_LINE.search(text)
    if line is None or not normalise(line[1]):
        return None
    before = text[: line.start()].strip()
    if before and not before.startswith(_THOUGHT):
        return None
    return Turn(before.removeprefix(_THOUGHT).strip(), line[1].strip())


def render(thought: str, action: str) -> str:
    """The text of a turn; the inverse of `parse`."""
    return f"{_THOUGHT} {thought}\nAction: {action}" if thought else f"Action: {action}"


def normalise(action: str) -> str:
    """The form in which actions are compared, counted and executed.

    Lower case, single spaces, without quotes, backticks or a final full stop: text worlds ignore these differences, or
    reject a command because of them.
    """
    return " ".join(action.split()).strip(_MARKS).rstrip(f".{_MARKS}").lower()


def has_action_line(text: str) -> bool:
    """Whether a thought contains a line that would be read as an action."""
    return _ACTION_LINE.search(text) is not None
