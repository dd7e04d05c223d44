"""One message of a conversation, as models, agents and prompts pass it around."""

from typing import Literal, NamedTuple


class Message(NamedTuple):
    """A role and what it says."""

    role: Literal["system", "user", "assistant"]
    content: str
