"""Read expert trajectories in the ShareGPT form of ETO's data: a list of rows with `id` and `conversations`.

A message is `{"from": "human"|"gpt", "value": ...}` or `{"role": "user"|"assistant", "content": ...}`. The task is the
human message before the first turn that has an action. Messages before the task (instruction text, "OK") are skipped.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from sandcli.agent.turns import Turn, parse
from sandcli.errors import UsageError

_OBSERVATION = "Observation:"
_FIX = 'a row is {"id": "9_412", "conversations": [{"from": "human", "value": ...}, ...]}'


class RecordedTrajectory(NamedTuple):
    """One recorded trajectory. `task` names its task or game. The last turn may have no observation."""

    id: str
    task: str
    instruction: str
    turns: list[Turn]
    observations: list[str]


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


class _Row(msgspec.Struct):
    id: str | int = ""
    game_file: str = ""
    conversations: list[_Message] = []
    messages: list[_Message] = []


def read_trajectories(path: Path) -> list[RecordedTrajectory]:
    """The trajectories in a file. Raises `UsageError` with the line of invalid JSON or the number of an invalid row."""
    recorded = [_trajectory(f"{path}: row {number}", raw) for number, raw in enumerate(_load(path), 1)]
    seen: set[str] = set()
    for number, trajectory in enumerate(recorded, 1):
        if trajectory.id in seen:
            raise UsageError(f"{path}: row {number}: id {trajectory.id!r} occurs twice", "give every row its own id")
        seen.add(trajectory.id)
    return recorded


def _load(path: Path) -> list[Any]:
    try:
        content = json.loads(path.read_bytes())  # in any form of Unicode, with or without a byte order mark
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "use the path of a JSON file in ETO's form") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        where = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise UsageError(f"{path}{where}: not JSON: {error}", "use a JSON list of rows in ETO's form") from None
    if not isinstance(content, list) or not content:
        raise UsageError(f"{path}: not a list of rows", "use a JSON list of rows in ETO's form")
    return content


def _trajectory(where: str, raw: Any) -> RecordedTrajectory:
    row = _row(where, raw)
    name = str(row.id) or row.game_file
    if not name:
        raise UsageError(f"{where} has neither an id nor a game_file", _FIX)
    messages = row.conversations or row.messages
    parsed = [parse(message.text) if message.by_agent else None for message in messages]
    first = next((i for i, turn in enumerate(parsed) if turn), 0)
    if first == 0:
        raise UsageError(f"{where} ({name}) has no turn with an action", _FIX)
    turns = [turn for turn in parsed[first:] if turn]
    if len(turns) < sum(message.by_agent for message in messages[first:]):
        raise UsageError(f"{where} ({name}) has a turn without an action", _FIX)
    observations = [m.text.strip().removeprefix(_OBSERVATION).strip() for m in messages[first:] if not m.by_agent]
    if len(turns) - len(observations) not in (0, 1):
        raise UsageError(f"{where} ({name}) has {len(turns)} turns, {len(observations)} observations", _FIX)
    task = messages[first - 1].text.strip()
    return RecordedTrajectory(name, row.game_file or name, task, turns, observations)


def _row(where: str, raw: Any) -> _Row:
    try:
        return msgspec.convert(raw, _Row)
    except msgspec.ValidationError as error:
        raise UsageError(f"{where}: {error}", _FIX) from None
