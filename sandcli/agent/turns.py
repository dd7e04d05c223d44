"""An agent's turn as text: `Thought: ...`, then `Action: ...` on a line of its own, or the action alone.

Settings allow other forms, for agents that were trained elsewhere.
"""

import re
from typing import NamedTuple

from sandcli.settings import AgentSettings

_ACTION = "Action:"
_ACTION_LINE = re.compile(r"^[ \t]*Action:([^\n]*)", re.MULTILINE)
_THOUGHT = "Thought:"
_MARKS = "\"'` "

FORM = AgentSettings()
"""The form in which turns are written and, unless settings say otherwise, read."""


class Turn(NamedTuple):
    """What the agent said. `thought` may be empty."""

    thought: str
    action: str


def parse(text: str, form: AgentSettings = FORM) -> Turn | None:
    """Read an agent's turn; None if it cannot be read. Everything after the first action is ignored.

    The form of a turn is set by `agent.inline`, `agent.preface` and `agent.thought`.
    """
    before, action = _split(text, form.inline)
    thought = _thought(before.strip(), form.preface)
    if not normalise(action) or thought is None or (form.thought == "required" and not thought):
        return None
    return Turn(thought, action.strip())


def split_action(text: str, form: AgentSettings = FORM) -> tuple[str, str] | None:
    """A turn up to its `Action:`, which is included, and its action; None if it cannot be read."""
    turn = parse(text, form)
    if turn is None:
        return None
    before, _ = _split(text, form.inline)
    return text[: text.index(_ACTION, len(before)) + len(_ACTION)], turn.action


def _split(text: str, inline: bool) -> tuple[str, str]:
    """What is before the first action, and the action."""
    if inline:
        before, _, after = text.partition(_ACTION)
        return before, after.lstrip().partition("\n")[0]
    line = _ACTION_LINE.search(text)
    return (text[: line.start()], line[1]) if line else (text, "")


def _thought(before: str, preface: bool) -> str | None:
    """The thought in what is before an action; None if there is other text that is not allowed."""
    other, marked, thought = before.partition(_THOUGHT)
    if other and not preface:
        return None
    return thought.strip() if marked else before


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
