"""Expert trajectories in the ShareGPT form that ETO published: a list of rows with `id` and `conversations`.

A message is `{"from": "human"|"gpt", "value": ...}` or `{"role": "user"|"assistant", "content": ...}`. Whatever
comes before the task (instruction text, "OK") is passed over: the task is the human message before the first
turn that holds an action.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from sandcli.agent.turns import Turn, parse
from sandcli.errors import UsageError

_OBSERVATION = "Observation:"


class Row(NamedTuple):
    """One trajectory as recorded. `task` names its task or game; `observations` may be one shorter than `turns`."""

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


def read_rows(path: Path) -> list[Row]:
    """All rows of a file. Raises `UsageError` that names the line of broken JSON, or the row of a broken row."""
    rows = [_row(path, number, raw) for number, raw in enumerate(_parsed(path), 1)]
    seen: set[str] = set()
    for number, row in enumerate(rows, 1):
        if row.id in seen:
            raise UsageError(f"{path}: row {number}: id {row.id!r} came before", "give every row an id of its own")
        seen.add(row.id)
    return rows


def _parsed(path: Path) -> list[Any]:
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "give the path of a JSON file in ETO's form") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        where = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise UsageError(f"{path}{where}: not JSON: {error}", "give a JSON list of rows in ETO's form") from None
    if not isinstance(content, list) or not content:
        raise UsageError(f"{path}: not a list of rows", "give a JSON list of rows in ETO's form")
    return content


def _row(path: Path, number: int, raw: Any) -> Row:
    fix = 'a row is {"id": "9_412", "conversations": [{"from": "human", "value": ...}, ...]}'
    try:
        row = msgspec.convert(raw, _Row)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: row {number}: {error}", fix) from None
    name = str(row.id) or row.game_file
    if not name:
        raise UsageError(f"{path}: row {number} has neither an id nor a game_file", fix)
    messages = row.conversations or row.messages
    said = [parse(message.text) if message.by_agent else None for message in messages]
    first = next((i for i, turn in enumerate(said) if turn), 0)
    if first == 0:
        raise UsageError(f"{path}: row {number} ({name}) holds no turn with an action", fix)
    turns = [turn for turn in said[first:] if turn]
    if len(turns) < sum(message.by_agent for message in messages[first:]):
        raise UsageError(f"{path}: row {number} ({name}) holds a turn without an action", fix)
    seen = [m.text.strip().removeprefix(_OBSERVATION).strip() for m in messages[first:] if not m.by_agent]
    if len(turns) - len(seen) not in (0, 1):
        raise UsageError(f"{path}: row {number} ({name}) has {len(turns)} turns, {len(seen)} observations", fix)
    return Row(name, row.game_file or name, messages[first - 1].text.strip(), turns, seen)
