"""A made-up panel on the toy world."""

import json
from pathlib import Path
from typing import Any

from sandcli.messages import Said
from sandcli.panels.panel import Panel, PanelTask, written

TOY = "tests.toyworld:ToyWorld"


def task(variation: int, step_limit: int = 8, content: str = "wood") -> PanelTask:
    return PanelTask(name="fetch", variation=variation, step_limit=step_limit, content=content)


def panel(**fields: Any) -> Panel:
    values: dict[str, Any] = {
        "world": TOY,
        "versions": {"toyworld": "1"},
        "settings": {"agent.max_tokens": 64},
        "preamble": [Said("system", "You live in a house.")],
        "splits": {"seen": [task(6), task(7)], "unseen": [task(9)]},
    }
    return Panel(**{**values, **fields})


def in_file(path: Path, made: Panel) -> str:
    """The path of the panel's file."""
    path.write_bytes(written(made))
    return str(path)


def edited(path: Path, **fields: Any) -> str:
    """The path of a panel whose file was edited; `hash` is as it was."""
    content = json.loads(written(panel())) | fields
    path.write_text(json.dumps(content))
    return str(path)
