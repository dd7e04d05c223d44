"""What tests do to runs: edit a record by hand, and let the engine fail."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sandcli.core.artifact import StageName
from sandcli.engines.scripted import ScriptedEngine
from sandcli.errors import MachineryError
from tests.helpers import accept_edit, lines

STAGES: tuple[StageName, ...] = ("collect", "explore", "sample", "rollout", "critique", "synthesize", "eval")
LIMIT = 3


def edit(path: Path, line: int, **changes: Any) -> None:
    """Change fields of one record of expert.jsonl, and accept the edit."""
    rewrite(path, line, **changes)
    accept_edit("collect", path.parent, limit=LIMIT)


def rewrite(path: Path, line: int, **changes: Any) -> None:
    """Change fields of one record of a file."""
    records = lines(path)
    records[line].update(changes)
    path.write_text("".join(json.dumps(record, separators=(",", ":"), ensure_ascii=False) + "\n" for record in records))


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, where: str = "") -> Iterator[None]:
    """Inside, the engine fails on conversations that contain the text `where`."""
    generate = ScriptedEngine.generate

    async def broken(self: ScriptedEngine, messages: Any, sampling: Any) -> Any:
        if any(where in message.content for message in messages):
            raise MachineryError("engine", "out of order")
        return await generate(self, messages, sampling)

    with monkeypatch.context() as patch:
        patch.setattr(ScriptedEngine, "generate", broken)
        yield
