"""An engine without a model, for tests and for trying the pipeline: it answers by rules.

The rules are a JSON list of `{"when": text, "replies": [text, ...]}`. The first rule whose `when` occurs in the
conversation answers. The seed alone selects the reply, so a run always has the same result.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import msgspec

from sandcli.engines.base import Completion, Model, Sampling, Usage
from sandcli.errors import MachineryError, UsageError
from sandcli.messages import Message


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One rule: the replies to conversations that contain `when`."""

    when: str
    replies: list[str]


class ScriptedEngine:
    """Answers by rules; counts words as tokens."""

    capacity = 64
    cache_tokens: int | None = None

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules
        self._prompt = self._generated = 0

    @classmethod
    def load(cls, path: Path) -> "ScriptedEngine":
        """Read the rules. Raises `UsageError` for a missing or malformed file."""
        try:
            return cls(msgspec.convert(json.loads(path.read_bytes()), list[Rule]))
        except (OSError, ValueError, RecursionError, msgspec.ValidationError) as error:
            raise UsageError(
                f"engine.script {str(path)!r}: {error}", "give a JSON list of when/replies rules"
            ) from None

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> list[Completion]:
        """Return the rule's reply for each seed; all its replies are equally probable."""
        text = "\n".join(message.content for message in messages)
        replies = next((rule.replies for rule in self._rules if rule.when in text), None)
        if replies is None:
            raise MachineryError("engine", f"no rule answers a conversation that ends in {text[-80:]!r}")
        chosen = [replies[(sampling.seed + i) % len(replies)] for i in range(sampling.n)]
        self._prompt += len(text.split())
        self._generated += sum(len(reply.split()) for reply in chosen)
        chances = tuple(fmean(reply.startswith(each) for reply in replies) for each in sampling.openings)
        return [Completion(reply, len(reply.split()), "stop", chances=chances) for reply in chosen]

    async def for_model(self, model: Model) -> "ScriptedEngine":
        """Return itself: the rules replace every model."""
        return self

    def usage(self) -> Usage:
        """Return the words read and written."""
        return Usage(self._prompt, 0, self._generated, 1.0)

    async def close(self) -> None:
        """Do nothing: there is no model to free."""
