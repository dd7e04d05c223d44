"""Reads recorded trajectories in the published formats: rows with an id and a conversation.

A message is `{"from": "human"|"gpt", "value": ...}` (ETO, AgentGym) or `{"role": "user"|"assistant", "content": ...}`.
The task is named by `game_file`, `item_id` (AgentGym) or `id`. Anything before the message that states it
(instruction, "OK", an example episode) is the preamble.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from sandcli.agent.turns import Turn, parse
from sandcli.importers.rows import CONVERSATIONS
from sandcli.messages import Message
from sandcli.settings import AgentSettings

_OBSERVATION = "Observation:"
_ANY_FORM = AgentSettings(inline=True, preface=True)
_TASK = "your task is"


class RecordedTrajectory(NamedTuple):
    """One recorded trajectory. `task` names its task or game. The last turn may have no observation.

    `reward` is the recorded reward, None if the row has none. `preamble` holds the messages before the task.
    """

    id: str
    task: str
    instruction: str
    turns: list[Turn]
    observations: list[str]
    reward: float | None = None
    preamble: tuple[Message, ...] = ()


class UnusableRow(Exception):
    """A row that holds no trajectory; the text says why, as `kind: detail`."""


class _Message(msgspec.Struct):
    speaker: str | None = msgspec.field(default=None, name="from")
    value: str | None = None
    role: str | None = None
    content: str | None = None

    @property
    def by_agent(self) -> bool:
        return (self.speaker or self.role) in ("gpt", "assistant")

    @property
    def text(self) -> str:
        return self.value if self.value is not None else self.content or ""

    @property
    def as_message(self) -> Message:
        """The message in our own form."""
        speaker = self.speaker or self.role
        return Message("assistant" if self.by_agent else "system" if speaker == "system" else "user", self.text)

    @property
    def marked(self) -> bool:
        """Whether the message calls itself an observation."""
        return self.text.lstrip().startswith(_OBSERVATION)


class ConversationRow(msgspec.Struct):
    """A row in any of the formats."""

    id: str | int | None = None
    item_id: str | int | None = None
    game_file: str | None = None
    conversations: list[_Message] | None = None
    messages: list[_Message] | None = None
    reward: float | None = None

    @property
    def name(self) -> str:
        """The id of the row."""
        return next((str(name) for name in (self.id, self.item_id, self.game_file) if name not in (None, "")), "")

    @property
    def task(self) -> str:
        """The name of its task or game."""
        return str(self.game_file or self.item_id or self.name)


def read_row(content: Any) -> ConversationRow:
    """A row with a name. Raises `UnusableRow` if it is not one."""
    try:
        row = msgspec.convert(content, ConversationRow)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # the second: a key with half a character
        raise UnusableRow(f"a row has no known format: {error}") from None
    if not row.name:
        raise UnusableRow("a row names no task: it has no id, item_id or game_file")
    return row


def read_trajectory(row: ConversationRow) -> RecordedTrajectory:
    """The trajectory in a row. Raises `UnusableRow` if there is none."""
    messages = row.conversations or row.messages
    if not messages:
        raise UnusableRow(f"a row has no messages: it has no {' or '.join(CONVERSATIONS)}")
    spoken = [_turn(message.text) if message.by_agent else None for message in messages]
    task = _task_at(messages, spoken)
    turns = [turn for turn in spoken[task:] if turn]
    said = [message for message in messages[task + 1 :] if not message.by_agent]
    _check(len(turns), sum(message.by_agent for message in messages[task:]), len(said))
    observations = [message.text.strip().removeprefix(_OBSERVATION).strip() for message in said]
    preamble = tuple(message.as_message for message in messages[:task])
    instruction = messages[task].text.strip()
    return RecordedTrajectory(row.name, row.task, instruction, turns, observations, row.reward, preamble)


def _check(turns: int, spoken: int, observations: int) -> None:
    if turns < spoken:
        raise UnusableRow(f"a turn has no action: {spoken - turns} of {spoken} turns")
    if turns - observations not in (0, 1):
        raise UnusableRow(f"turns and observations do not alternate: {turns} turns, {observations} observations")


def _turn(text: str) -> Turn | None:
    """A turn of the agent. In some data sets the action is in the middle of a line, or on the line after `Action:`."""
    return parse(text) or parse(text, _ANY_FORM)


def _task_at(messages: Sequence[_Message], spoken: Sequence[Turn | None]) -> int:
    """The place of the task statement: before the first turn with an action, or after an example episode."""
    first = next((i for i, turn in enumerate(spoken) if turn), 0)
    if first == 0 or messages[first - 1].by_agent:
        raise UnusableRow("no action follows a task")
    if not any(message.marked for message in messages):
        return first - 1
    later = (i for i in range(first, len(messages) - 1) if spoken[i + 1])
    stated = (i for i in later if not messages[i].by_agent and not messages[i].marked)
    return max((i for i in stated if _TASK in messages[i].text.lower()), default=first - 1)
