"""What is sent to `/v1/completions`, and what comes back."""

import math
from collections.abc import Sequence

import msgspec

from sandcli.engines.base import Completion, Sampling, stop_at, without_thought


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """A request for one completion; servers that do not know a field, such as `stop_token_ids`, ignore it."""

    model: str
    prompt: list[int]
    max_tokens: int
    temperature: float
    seed: int
    stop: tuple[str, ...] | msgspec.UnsetType
    stop_token_ids: list[int]
    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    logprobs: int | msgspec.UnsetType = msgspec.UNSET


MOST_LIKELY = 20
"""Tokens whose probabilities are asked for: vLLM tells no more unless it is started with --max-logprobs."""


class _Logprobs(msgspec.Struct, frozen=True):
    top_logprobs: list[dict[str, float] | None] | None = None


class _Choice(msgspec.Struct, frozen=True):
    text: str
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Cached(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class Tokens(msgspec.Struct, frozen=True):
    """How many tokens it took."""

    completion_tokens: int
    prompt_tokens_details: _Cached | None = None


class Answer(msgspec.Struct, frozen=True):
    """The answer to it."""

    choices: list[_Choice]
    usage: Tokens


class LessContext(Exception):
    """The server accepts only shorter conversations than the model. `limit` is in tokens, None if unknown."""

    def __init__(self, limit: int | None) -> None:
        super().__init__(limit)
        self.limit = limit


class Failed(Exception):
    """A request that is worth another try; `connection`: the server was not there, or went away."""

    def __init__(self, why: str, connection: bool = False) -> None:
        super().__init__(why)
        self.connection = connection


def completion_of(answer: Answer, prompt: int, sampling: Sampling) -> Completion:
    """Return the text up to the first stop string, which some servers include. Raises `Failed` for no completion.

    A server that runs out of context shortens the completion silently: that is `LessContext`.
    """
    if not answer.choices:
        raise Failed("gave an answer without a completion")
    choice, tokens = answer.choices[0], answer.usage.completion_tokens
    if choice.finish_reason not in ("stop", "length"):
        raise Failed(f"broke a completion off ({choice.finish_reason})")
    cut = stop_at(choice.text, sampling.stop)
    if choice.finish_reason == "stop" or cut is not None:
        return Completion(without_thought(choice.text[:cut]), tokens, "stop", prompt + tokens)
    if tokens < sampling.max_tokens:
        raise LessContext(prompt + tokens)
    return Completion(without_thought(choice.text), tokens, "length", prompt + tokens)


def chances_of(answer: Answer, tokens: Sequence[str]) -> tuple[float, ...] | None:
    """Return the probability of each token as the first one; 0 if it is not among the most likely. None if untold."""
    told = answer.choices[0].logprobs if answer.choices else None
    first = told.top_logprobs[0] if told and told.top_logprobs else None
    return tuple(math.exp(first[token]) if token in first else 0.0 for token in tokens) if first else None
