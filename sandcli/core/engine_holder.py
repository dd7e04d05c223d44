"""One engine at a time, for stages that use several models."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from sandcli.core.context import Context
from sandcli.engines.base import Engine, Model


class EngineHolder:
    """Holds the engine with one model loaded. A caller that needs another model waits until this one is not in use."""

    def __init__(self, context: Context, first: Model) -> None:
        self._context = context
        self._first = first
        self._users = 0
        self._served: dict[Model, Engine | None] = {}
        self._changed = asyncio.Condition()
        self._beside = AsyncExitStack()
        self._second: dict[Model, Engine] = {}

    async def __aenter__(self) -> "EngineHolder":
        await self._load(self._first)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._beside.aclose()
        await self._open.aclose()

    async def _load(self, model: Model) -> None:
        self._open = AsyncExitStack()
        self._engine = await self._open.enter_async_context(self._context.engine(model))
        self._served = {model: self._engine}

    async def _serves(self, model: Model) -> Engine | None:
        """The open engine as this model, if it can serve it without loading."""
        if model not in self._served:
            self._served[model] = await self._engine.for_model(model)
        return self._served[model]

    @asynccontextmanager
    async def beside(self, model: Model) -> AsyncIterator[Engine]:
        """An engine for a model that is needed while another is in use: the open one, or one that stays open too."""
        async with self._changed:
            engine = await self._serves(model)
            if engine is None and model not in self._second:
                self._second[model] = await self._beside.enter_async_context(self._context.engine(model))
        yield engine or self._second[model]

    @asynccontextmanager
    async def for_model(self, model: Model) -> AsyncIterator[Engine]:
        """The engine as this model. Adapters are served with their base, so changing between them loads nothing."""
        async with self._changed:
            while await self._serves(model) is None and self._users:
                await self._changed.wait()
            engine = await self._serves(model)
            if engine is None:
                await self._open.aclose()
                await self._load(model)
                engine = self._engine
            self._users += 1
        try:
            yield engine
        finally:
            async with self._changed:
                self._users -= 1
                self._changed.notify_all()
