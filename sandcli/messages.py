"""One message of a conversation: as models, agents and prompts pass it around, and as files hold it."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import msgspec

Role = Literal["system", "user", "assistant"]


class Message(NamedTuple):
    """A role and what it says."""

    role: Role
    content: str


class Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One message in a file."""

    role: Role
    content: str


def as_said(messages: Iterable[Message]) -> list[Said]:
    """Messages as a file holds them."""
    return [Said(*message) for message in messages]


def as_messages(said: Iterable[Said]) -> list[Message]:
    """The inverse."""
    return [Message(each.role, each.content) for each in said]
