"""Loads and fills the texts in prompts/: the instruction of each world, and the questions to the base model."""

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any, cast

from sandcli.errors import PrerequisiteError
from sandcli.messages import Message

_PACKAGED = Path(__file__).with_name("_prompts")
_CHECKOUT = Path(__file__).parent.parent / "prompts"
_SLOT = re.compile(r"\{(\w+)\}")
_HEADING = re.compile(r"^# (system|user|assistant)$", re.MULTILINE)


@cache
def load(name: str) -> str:
    """The text of prompts/NAME.md, from the installed package or the checkout."""
    for folder in (_PACKAGED, _CHECKOUT):
        path = folder / f"{name}.md"
        if path.exists():
            return path.read_text(encoding="utf-8").strip()
    raise PrerequisiteError(f"prompt {name}.md is not installed", "reinstall sandcli")


def fill(name: str, **values: str) -> list[Message]:
    """The prompt as messages, every `{slot}` replaced.

    The file holds its messages under `# system`, `# user` and `# assistant` headings; earlier exchanges are worked
    examples. Values may contain braces and headings. Raises `KeyError` if a slot has no value.
    """
    parts = _HEADING.split(load(name))[1:]
    roles, texts = parts[::2], parts[1::2]
    return [
        Message(cast(Any, role), _SLOT.sub(lambda slot: values[slot[1]], text.strip()))
        for role, text in zip(roles, texts, strict=True)
    ]


def digest(text: str) -> str:
    """A short hash of a text, for the identity of what was made with it."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
