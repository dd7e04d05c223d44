"""The interface of language models: what they are asked, what they answer, and what that took."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from sandcli.messages import Message


class Sampling(NamedTuple):
    """How to draw `n` completions of one prompt.

    Completion i is drawn with seed `seed + i`, so a larger n extends a smaller one. `temperature` 0 is greedy.
    `max_tokens` bounds one completion; generation ends before any of the `stop` strings. `openings` are texts with
    which a completion might begin: see `Completion.chances`. They need a prompt that ends with the assistant's words.
    """

    n: int = 1
    temperature: float = 0.0
    max_tokens: int = 256
    seed: int = 0
    stop: tuple[str, ...] = ()
    openings: tuple[str, ...] = ()


def stop_at(text: str, stop: Sequence[str]) -> int | None:
    """Return where the first of the stop strings begins, or None if the text contains none."""
    return min((at for at in map(text.find, stop) if at >= 0), default=None)


def without_thought(text: str) -> str:
    """Return a completion without the thought `<think>...</think>` at its start; empty if the thought has no end.

    Models are asked not to think (see `templates`), but some do so anyway.
    """
    begun = text.lstrip()
    return begun.partition("</think>")[2].lstrip() if begun.startswith("<think>") else text


class Completion(NamedTuple):
    """A generated text, without a thought at its start. `tokens` counts all generated tokens.

    `finish` is `length` if `max_tokens` ended it. `context` is the length of the whole conversation in tokens; 0 if it
    is not known. `chances` are the probabilities, at temperature 1, that the first token is that of each of
    `Sampling.openings`.
    """

    text: str
    tokens: int
    finish: Literal["stop", "length"]
    context: int = 0
    chances: tuple[float, ...] = ()


class Usage(NamedTuple):
    """What an engine has done so far.

    `prompt` counts prompt tokens, once for each of n completions; `cached` those that the engine had in its cache;
    `generated` the tokens of all completions. `batch` is the mean number of sequences that were generated together.
    `untold` counts the prompt tokens of which the engine does not say whether it had them in its cache.
    """

    prompt: int = 0
    cached: int = 0
    generated: int = 0
    batch: float = 0.0
    untold: int = 0


class Model(NamedTuple):
    """A model's folder, and its name in the settings: a path or a hub name.

    `trust_code`: code that comes with it may be run.
    """

    folder: Path
    name: str
    trust_code: bool = False


class Speaker(Protocol):
    """What an agent says."""

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> list[Completion]:
        """Return `sampling.n` completions of a conversation.

        If the last message is the assistant's, a completion continues it. Raises `ContextOverflow` if the prompt
        leaves no room for `max_tokens`, and `MachineryError` if the engine failed.
        """


class Engine(Speaker, Protocol):
    """Generates text in the event loop in which it was opened.

    Send it many requests at once: the engine batches them.
    """

    capacity: int
    """The number of sequences that it generates together; further requests wait inside it."""

    cache_tokens: int | None
    """How many tokens its prefix cache holds, in all copies together; None if it has none, or if that is not known."""

    async def for_model(self, model: Model) -> "Engine | None":
        """Return this engine for another model, or None if it cannot serve that one without loading more weights.

        An adapter of a model that is loaded counts as served. Close only the engine that was opened first.
        """

    def usage(self) -> Usage:
        """Return what was done since the engine was opened, for all its models."""

    async def close(self) -> None:
        """Free the model."""
