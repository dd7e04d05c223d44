"""Panels on disk: the user's files, and the published ones that come with the package."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from sandcli.agent.preamble import messages_of
from sandcli.errors import UsageError
from sandcli.files import must_be_free, write_atomic
from sandcli.panels.panel import NamedPanel, Panel, fixed_settings, written
from sandcli.records import Key
from sandcli.settings import Settings

_FOLDER = Path(__file__).with_name("published")
_MADE_AGAIN = "make it again with sand panel make, or get the file again"

PUBLISHED = tuple(sorted(path.stem for path in _FOLDER.glob("*.json")))
"""The names of the published panels."""


def read_panel(name: str) -> NamedPanel:
    """A published panel by its name, or the panel in a file.

    Raises `UsageError` if there is no such panel, or if the file is damaged or was edited.
    """
    content = _json(_path(name), name)
    noted = content.pop("hash", None)
    try:
        panel = msgspec.convert(content, Panel)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # the second: a key with half a character
        raise UsageError(f"{name} is not a panel: {error}", _MADE_AGAIN) from None
    _refuse_settings(panel, name)
    _refuse_tasks(panel, name)
    messages_of(panel.preamble, f"the panel {name}")
    if noted != panel.hash:
        raise UsageError(
            f"the panel {name} was changed: its hash is {panel.hash}, and the file says {noted!r}",
            f"get the file again, or write {panel.hash} into it if the change is meant",
        )
    return NamedPanel(panel, name)


def write_panel(path: Path, panel: Panel) -> None:
    """Write a new file. Raises `UsageError` if the path is taken, or the name of a published panel."""
    if str(path) in PUBLISHED:
        raise UsageError(f"{path} is the name of a published panel", f"choose another name, such as my-{path}.json")
    must_be_free(path, "panel.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, [written(panel)])


def _path(name: str) -> Path:
    path = _FOLDER / f"{name}.json" if name in PUBLISHED else Path(name)
    if path.is_file():
        return path
    raise UsageError(
        f"there is no panel {name!r}", f"give a file made by sand panel make, or one of: {', '.join(PUBLISHED)}"
    )


def _json(path: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"the panel {name} cannot be read: {error.strerror}", "check its permissions") from None
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, lists too deep
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise UsageError(f"{name}{line}: not JSON: {error}", _MADE_AGAIN) from None
    if not isinstance(content, dict):
        raise UsageError(f"{name} is not a panel: it holds no JSON object", _MADE_AGAIN)
    return content


def _refuse_settings(panel: Panel, name: str) -> None:
    """Refuse settings that a panel does not fix, and wrong values."""
    tables: dict[str, dict[str, Any]] = {}
    for setting, value in panel.settings.items():
        if setting not in fixed_settings():
            raise UsageError(f"the panel {name} sets {setting!r}, which no panel can", _MADE_AGAIN)
        table, _, key = setting.partition(".")
        tables.setdefault(table, {})[key] = value
    try:
        msgspec.convert(tables, Settings)
    except msgspec.ValidationError as error:
        raise UsageError(f"the panel {name} has a wrong setting: {error}", _MADE_AGAIN) from None


def _refuse_tasks(panel: Panel, name: str) -> None:
    """Refuse a task that is twice in a split, since it would be played once, or that has two step limits."""
    limits: dict[Key, int] = {}
    for split, tasks in panel.splits.items():
        if len({task.key for task in tasks}) < len(tasks):
            twice, _ = Counter(task.task for task in tasks).most_common(1)[0]
            raise UsageError(f"the panel {name} has {str(twice)!r} twice in {split}", _MADE_AGAIN)
        for task in tasks:
            if limits.setdefault(task.key, task.step_limit) != task.step_limit:
                raise UsageError(f"the panel {name} has two step limits for {str(task.task)!r}", _MADE_AGAIN)
