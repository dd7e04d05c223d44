"""What a language model is to the rest of the program."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from sandcli.react import Message


class Sampling(NamedTuple):
    """How to draw completions.

    `n` completions of one prompt; completion i is drawn with seed `seed + i`, so a larger n extends a smaller
    one. `temperature` 0 is greedy. `max_tokens` bounds one completion; generation ends before any of `stop`.
    """

    n: int = 1
    temperature: float = 0.0
    max_tokens: int = 256
    seed: int = 0
    stop: tuple[str, ...] = ()


class Completion(NamedTuple):
    """`tokens` counts all generated tokens. `finish`: `stop` (ended by itself), or `length` (cut by max_tokens)."""

    text: str
    tokens: int
    finish: Literal["stop", "length"]


class Usage(NamedTuple):
    """What an engine did so far: prompt tokens asked for, those taken from its cache, and tokens generated."""

    prompt: int
    cached: int
    generated: int


class Engine(Protocol):
    """Generates text. Many awaits at once are welcome: batching is the engine's business."""

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> list[Completion]:
        """`sampling.n` completions of a conversation.

        Where the last message is the assistant's, it is continued, and the completion is what follows it.
        Raises `ContextOverflow` when the prompt leaves no room for `max_tokens`, `MachineryError` when the
        engine failed.
        """

    def usage(self) -> Usage:
        """Token counts since the engine was opened."""

    def close(self) -> None:
        """Free the model."""
