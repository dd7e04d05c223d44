"""Wraps an engine and counts how long its callers waited and how many completions were blank.

It replaces characters that UTF-8 cannot hold, so that every completion can be recorded and shown to a model again.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sandcli.engines.base import Completion, Engine, Model, Sampling, Usage
from sandcli.messages import Message
from sandcli.records import storable


@dataclass
class Clock:
    """`waited` is in seconds, summed over all callers; `empty` counts blank completions, `replaced` characters."""

    waited: float = 0.0
    empty: int = 0
    replaced: int = 0


class Metered:
    """Passes all calls on; engines for other models share its clock."""

    def __init__(self, engine: Engine, clock: Clock, saw: Callable[[int], None]) -> None:
        """`saw` is called with the length of every conversation, in the task that continued it."""
        self._engine = engine
        self._saw = saw
        self.clock = clock
        self.capacity = engine.capacity
        self.cache_tokens = engine.cache_tokens

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> list[Completion]:
        """See `Engine.generate`."""
        started = time.monotonic()
        try:
            completions = await self._engine.generate(messages, sampling)
        finally:
            self.clock.waited += time.monotonic() - started
        self._saw(max((completion.context for completion in completions), default=0))
        self.clock.empty += sum(not completion.text.strip() for completion in completions)
        return [self._storable(completion) for completion in completions]

    def _storable(self, completion: Completion) -> Completion:
        text, replaced = storable(completion.text)
        self.clock.replaced += replaced
        return completion._replace(text=text)

    async def for_model(self, model: Model) -> "Metered | None":
        """See `Engine.for_model`."""
        other = await self._engine.for_model(model)
        return None if other is None else Metered(other, self.clock, self._saw)

    def usage(self) -> Usage:
        """See `Engine.usage`."""
        return self._engine.usage()

    async def close(self) -> None:
        """See `Engine.close`."""
        await self._engine.close()
