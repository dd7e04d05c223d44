"""What the stages share that play held-out tasks with several models."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property
from typing import Protocol, TypeVar

from sandcli.agent.conversation import STOP
from sandcli.core.context import model_fingerprint
from sandcli.core.engine_holder import EngineHolder
from sandcli.core.planner import open_units
from sandcli.core.stage import R, Stage
from sandcli.engines.base import Model, Sampling
from sandcli.records import Task


class OfModel(Protocol):
    """The work of one model, by its name in `eval.models`."""

    @property
    def model(self) -> str:
        """The name."""


M = TypeVar("M", bound=OfModel)


class ModelsStage(Stage[M, R]):
    """Units belong to the models of `eval.models`, which are loaded one after the other."""

    tables = ("agent", "env", "eval", "engine")
    prompts = ("preamble",)
    plays = True
    allow_extra = True

    def model(self) -> Model:
        """The first model that is evaluated."""
        return self._named(self.settings.eval.models[0])

    def input_hashes(self) -> dict[str, str]:
        """The files it reads and the models: if one was trained again, what was made with it is stale."""
        return super().input_hashes() | self.model_hashes()

    @cached_property
    def evaluated(self) -> dict[str, Model]:
        """The models by name; finding one hashes its folder."""
        return {name: self._named(name) for name in self.settings.eval.models}

    def _named(self, model: str) -> Model:
        match model:
            case "model":
                return self.context.scripted or self.context.made_by("train")
            case "sft":
                return self.context.scripted or self.context.made_by("sft")
            case "base":
                return self.context.base()
        return self.context.scripted or self.context.model(model)

    def model_hashes(self) -> dict[str, str]:
        """The fingerprints of the models by name."""
        return {name: model_fingerprint(model.folder) for name, model in self.evaluated.items()}

    @property
    def sampling(self) -> Sampling:
        """A greedy turn."""
        return Sampling(max_tokens=self.settings.agent.max_tokens, stop=STOP)

    def tasks(self, split: str) -> list[Task]:
        """The first tasks of a split: `--limit` counts them."""
        return self.context.world.tasks(split)[: self.limit]

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Start the environments; models are loaded one after the other, beginning with the first that has work."""
        recorded = self.artifact.recorded()
        unit = next(open_units(self, recorded), None) if recorded is not None else None
        first = self.evaluated[unit.payload.model] if unit else self.model()
        async with EngineHolder(self.context, first) as self.engines, self.context.pool() as self.pool:
            yield
