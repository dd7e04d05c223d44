"""What the stages share that play held-out tasks with several models."""

import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import cached_property
from typing import Protocol, TypeVar

from msgspec.structs import replace

from sandcli.agent.conversation import STOP
from sandcli.core.context import Context, model_fingerprint
from sandcli.core.engine_holder import EngineHolder
from sandcli.core.manifest import Identity, Manifest
from sandcli.core.panel import PanelContext, playing
from sandcli.core.planner import open_units
from sandcli.core.run import LEARNING
from sandcli.core.stage import R, Stage, State
from sandcli.engines.base import Model, Sampling
from sandcli.errors import SandError, UsageError
from sandcli.panels.files import read_panel
from sandcli.progress import notice
from sandcli.records import Key, Task


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

    def __init__(self, context: Context) -> None:
        self._own = context
        super().__init__(playing(context))

    def identity(self) -> Identity:
        """As for any stage, and the hash of the panel; its name is only what was asked for."""
        made = super().identity()
        if self.context.named_panel is None:
            return made
        panel, name = self.context.named_panel
        return replace(made, settings=made.settings | {"panel": panel.hash}, scope=made.scope | {"panel": name})

    def check_stale(self, state: State) -> None:
        """Raise `UsageError` if episodes of two panels would be kept together."""
        made = self.artifact.newest_manifest()
        other = next((why for why in state.reasons if why.startswith("panel:")), None)
        if other is not None:
            raise UsageError(
                f"{self.artifact.path} was played on another panel, and one file holds one panel's ({other})",
                f"{self.artifact.command} --panel {panel_again(made)} continues it; "
                "--force moves it aside and redoes it",
            )

    def check(self, state: State) -> None:
        """Say what the panel sets."""
        if isinstance(self.context, PanelContext) and (unlike := self.context.unlike(self._own)):
            notice(f"the panel {self.context.named_panel.name} overrides this run: {'; '.join(unlike)}")

    def model(self) -> Model:
        """The first model that is evaluated."""
        return self.named(self.settings.eval.models[0])

    def input_hashes(self) -> dict[str, str]:
        """The files it reads and the models: if one was trained again, what was made with it is stale."""
        return super().input_hashes() | self.model_hashes()

    @cached_property
    def evaluated(self) -> dict[str, Model]:
        """The models by name; finding one hashes its folder."""
        return {name: self.named(name) for name in self.settings.eval.models}

    def named(self, model: str) -> Model:
        """A model by its name in `eval.models`."""
        match model:
            case "policy":
                return self.context.policy()
            case "model":
                return self.context.scripted or self.context.made_by(LEARNING[self.context.settings.method.name].by)
            case "sft":
                return self.context.scripted or self.context.made_by("sft")
            case "wkm":
                return self.context.scripted or self.context.made_by("wkm")
            case "base":
                return self.context.base()
        return self.context.scripted or self.context.model(model)

    def model_hashes(self) -> dict[str, str]:
        """The fingerprints of the models by name."""
        return {name: model_fingerprint(model.folder) for name, model in self.evaluated.items()}

    def begins_like(self, key: Key) -> Key:
        """The draws of a task, or the steps of an episode."""
        return key[:-1]

    @property
    def sampling(self) -> Sampling:
        """A greedy turn."""
        return Sampling(max_tokens=self.settings.agent.max_tokens, stop=STOP)

    def tasks(self, split: str) -> list[Task]:
        """The first tasks of a split: `--limit` counts them."""
        return self.context.world.tasks(split)[: self.limit]

    def first_model(self) -> Model:
        """The first model that has work."""
        recorded = self.artifact.recorded()
        unit = next(open_units(self, recorded), None) if recorded is not None else None
        return self.evaluated[unit.payload.model] if unit else self.model()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Start the environments; models are loaded one after the other."""
        async with EngineHolder(self.context, self.first_model()) as self.engines, self.context.pool() as self.pool:
            yield


def panel_again(made: Manifest | None) -> str:
    """What follows `--panel` for the panel of earlier episodes; without one, that is an empty name."""
    panel = made.identity.settings.get("panel", "") if made else ""
    name = made.identity.scope.get("panel", "") if made else ""
    with suppress(SandError):
        if not panel or read_panel(name).panel.hash == panel:
            return shlex.quote(name)
    return f"FILE (the panel {panel}, which was in {name})"
