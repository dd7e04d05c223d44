"""The preamble: every message that the agent reads before its task.

It is the world's own instruction as a system message, or a list of messages from a file or from recorded data, such as
an instruction, the answer "OK" and an example episode.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from sandcli.errors import UsageError
from sandcli.messages import Message, Said, as_said

_FORM = 'use a JSON list such as [{"role": "user", "content": "..."}, {"role": "assistant", "content": "OK"}]'
_ORDER = "begin with a system or user message; after that, user and assistant take turns"


def read_preamble(path: Path) -> list[Message]:
    """The messages in a JSON file. White space around the assistant's is removed, as around an agent's turns.

    Raises `UsageError` if the file cannot be read, is not such a list, or its roles do not alternate.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        json.loads(text)  # its errors have lines
        said = msgspec.json.decode(text, type=list[Said])
    except OSError as error:
        raise UsageError(f"the preamble {path} cannot be read: {error.strerror}", _FORM) from None
    except msgspec.ValidationError as error:
        raise UsageError(f"{path} is no preamble: {error}", _FORM) from None
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, lists too deep
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise UsageError(f"{path}{line}: not JSON: {error}", _FORM) from None
    return messages_of(said, f"the preamble {path}")


def messages_of(said: Sequence[Said], where: str) -> list[Message]:
    """The messages as the agent reads them. Raises `UsageError`, which names `where`, if roles do not alternate."""
    _refuse_order(where, [message.role for message in said])
    return [Message(m.role, m.content.strip() if m.role == "assistant" else m.content) for m in said]


def _refuse_order(where: str, roles: Sequence[str]) -> None:
    begin = int(roles[:1] == ["system"])
    for number, role in enumerate(roles[begin:]):
        expected = ("user", "assistant")[number % 2]
        if role != expected:
            what = f"message {begin + number + 1} of {len(roles)} is the {role}'s, not the {expected}'s"
            raise UsageError(f"the roles in {where} do not alternate: {what}", _ORDER)


def with_knowledge(preamble: Sequence[Message], knowledge: str) -> list[Message]:
    """The preamble with what the agent knows about actions, if anything, at the end of its first message."""
    if not knowledge:
        return list(preamble)
    if not preamble:
        return [Message("system", knowledge)]
    first, *rest = preamble
    return [Message(first.role, f"{first.content}\n\n{knowledge}"), *rest]


def written(preamble: Sequence[Message]) -> bytes:
    """A preamble as the file that `read_preamble` reads."""
    return msgspec.json.format(msgspec.json.encode(as_said(preamble)), indent=2) + b"\n"


class MostCommon(NamedTuple):
    """The preamble that most of some trajectories begin with, and how many of them do. It may be empty."""

    preamble: tuple[Message, ...]
    having: int
    trajectories: int

    def __str__(self) -> str:
        rows = f"the same in all {self.trajectories} trajectories"
        if self.having < self.trajectories:
            rows = f"the most common one: {self.having} of {self.trajectories} trajectories have it"
        return f"{len(self.preamble)} messages, {rows}"


def most_common(preambles: Iterable[tuple[Message, ...]]) -> MostCommon:
    """The preamble that occurs most often."""
    counted = Counter(preambles)
    preamble, count = max(counted.items(), key=lambda item: item[1], default=((), 0))
    return MostCommon(preamble, count, counted.total())
