"""Loads and fills the texts in prompts/: the instruction of each world, and the sets of questions to the base model."""

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

from sandcli.errors import PrerequisiteError, UsageError
from sandcli.messages import Message

SETS = ("standard", "compact")
"""The built-in sets: for instruction-tuned models of 7B and more, and for much smaller ones."""

_PACKAGED = Path(__file__).with_name("_prompts")
_CHECKOUT = Path(__file__).parent.parent / "prompts"
_SLOT = re.compile(r"\{(\w+)\}")
_HEADING = re.compile(r"^# (system|user|assistant)$", re.MULTILINE)


@cache
def load(name: str) -> str:
    """The text of prompts/NAME.md, from the installed package or the checkout."""
    return _read(_shipped(name))


def _shipped(name: str) -> Path:
    for folder in (_PACKAGED, _CHECKOUT):
        path = folder / f"{name}.md"
        if path.exists():
            return path
    raise PrerequisiteError(f"prompt {name}.md is not installed", "reinstall sandcli")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}", "save it as UTF-8 text") from None


def action_knowledge(chosen: str, world: str) -> str:
    """The rules of which action may follow which: our own for a world, if `world` is chosen, or those in a text file.

    Raises `UsageError` if we have none for this world, or the file cannot be read.
    """
    if chosen != "world":
        return _read(Path(chosen))
    if world not in ("alfworld", "scienceworld"):
        raise UsageError(
            f"agent.knowledge is world, and there are no rules of actions for {world}",
            "write some into a text file, and set agent.knowledge to its path",
        )
    return load(f"{world}/knowledge")


def digest(text: str) -> str:
    """A short hash of a text, for the identity of what was made with it."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Prompts(NamedTuple):
    """A set of questions to the base model: one of `SETS`, or the user's own folder.

    Files that the folder lacks come from the standard set.
    """

    name: str = "standard"

    def load(self, name: str) -> str:
        """The text of one question. Raises `UsageError` if the set or the file cannot be read."""
        return _read(self._path(name))

    def _path(self, name: str) -> Path:
        if self.name in SETS:
            return _shipped(f"{self.name}/{name}")
        if not Path(self.name).is_dir():
            raise UsageError(f"prompts.set: there is no folder {self.name!r}", f"use {', '.join(SETS)} or a folder")
        own = Path(self.name) / f"{name}.md"
        return own if own.exists() else _shipped(f"standard/{name}")

    def fill(self, name: str, **values: str) -> list[Message]:
        """The question as messages, every `{slot}` replaced.

        The file holds its messages under `# system`, `# user` and `# assistant` headings; earlier exchanges are worked
        examples, and the model continues a final assistant message. Values may contain braces and headings.
        Raises `UsageError` if the file does not have this form.
        """
        parts = _HEADING.split(self.load(name))[1:]
        roles, texts = parts[::2], parts[1::2]
        if "user" not in roles:
            raise UsageError(f"{self._path(name)} asks nothing", "put the question under a line `# user`")
        for slot in _SLOT.findall("".join(texts)):
            if slot not in values:
                known = ", ".join(f"{{{value}}}" for value in values)
                raise UsageError(f"{self._path(name)}: there is no value for {{{slot}}}", f"use {known}")
        return [
            Message(cast(Any, role), _SLOT.sub(lambda slot: values[slot[1]], text.strip()))
            for role, text in zip(roles, texts, strict=True)
        ]
