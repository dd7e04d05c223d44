"""Lets as many units begin as the engine's prefix cache has room for.

A conversation grows turn by turn, and its next turn is cheap only if all before it is still in the cache. If the
conversations in progress do not fit together, each turn pushes out what the next one needs, and the engine computes
whole prompts again and again. So a unit waits until one that was begun has ended.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from statistics import fmean
from typing import Any

from sandcli.errors import MachineryError

_FILL = 0.9
"""The share of the cache that is planned with: it is handed out in blocks, which the last tokens do not fill."""

_USUAL = 2_000
"""The length that conversations are expected to have before any has ended, in tokens."""

_NEW = 0.2
"""The weight of the latest conversation in the mean of their lengths."""

_LOOK_EVERY = 0.05
"""Seconds between two looks at whether there is room."""


class Gate:
    """Counts the units in progress and the length of their conversations. A task stands for the unit that it does."""

    def __init__(self) -> None:
        self._cache_tokens: int | None = None
        self._usual = float(_USUAL)
        self._lengths: dict[asyncio.Task[Any] | None, int] = {}
        self._first = asyncio.Lock()

    def serve(self, cache_tokens: int | None) -> None:
        """The engine's prefix cache holds so many tokens; if None, it has none or does not say, and all may begin."""
        self._cache_tokens = cache_tokens

    @property
    def room(self) -> int | None:
        """How many units may be in progress; None if there is no limit."""
        if self._cache_tokens is None:
            return None
        now = [length for length in self._lengths.values() if length]
        length = max(self._usual, fmean(now) if now else 0.0)
        return max(1, int(_FILL * self._cache_tokens / length))

    @asynccontextmanager
    async def entered(self, stop: Callable[[], bool]) -> AsyncIterator[None]:
        """Wait for room for a unit, and hold it. Raises `MachineryError` if `stop` says so before it begins."""
        task = asyncio.current_task()
        async with self._first:  # the others wait behind it
            while (room := self.room) is not None and len(self._lengths) >= room:
                if stop():
                    raise MachineryError("engine", "the stage was stopped before this unit began")
                await asyncio.sleep(_LOOK_EVERY)
            self._lengths[task] = 0
        try:
            yield
        finally:
            length = self._lengths.pop(task)
            if length:
                self._usual += _NEW * (length - self._usual)

    def saw(self, tokens: int) -> None:
        """Note the length of a conversation that the current task continued."""
        task = asyncio.current_task()
        if task in self._lengths:
            self._lengths[task] = max(self._lengths[task], tokens)
