"""`sand eval`: greedy episodes on held-out tasks. The agent writes its deliberation in the same pass as its action."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import NamedTuple, cast, get_args

from sandcli.agent.conversation import STOP, conversation
from sandcli.agent.episode import play
from sandcli.agent.form import TURN_OPENINGS
from sandcli.core.context import model_fingerprint
from sandcli.core.engine_holder import EngineHolder
from sandcli.core.planner import open_units
from sandcli.core.stage import Metrics, Stage, State, Unit
from sandcli.engines.base import Engine, Model, Sampling
from sandcli.errors import UsageError
from sandcli.records import Deliberation, Episode, Task, agent_name
from sandcli.stages.inputs import preamble_too_long


class Trial(NamedTuple):
    """One task for one model."""

    split: str
    task: Task
    model: str
    deliberation: Deliberation


class EvalStage(Stage[Trial, Episode]):
    """Units are (split, task, model). Models are compared unit by unit."""

    name = "eval"
    tables = ("agent", "env", "eval", "engine")
    prompts = ("preamble",)
    plays = True
    allow_extra = True

    def reads(self) -> tuple[Path, ...]:
        """Nothing but models."""
        return ()

    def model(self) -> Model:
        """The first model that is evaluated."""
        return self._named(self.settings.eval.models[0])

    @cached_property
    def _evaluated(self) -> dict[str, Model]:
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

    def input_hashes(self) -> dict[str, str]:
        """The evaluated models: if one was trained again, its episodes are stale."""
        return {name: model_fingerprint(model.folder) for name, model in self._evaluated.items()}

    def units(self) -> list[Unit[Trial]]:
        """The first tasks of every split, once for each model; `--limit` counts the tasks of a split."""
        prints = self.input_hashes()
        tasks = {split: self.context.world.tasks(split)[: self.limit] for split in self.settings.eval.splits}
        return [
            Unit((split, *task.key, agent_name(model, mode)), Trial(split, task, model, mode), (prints[model],))
            for model in self.settings.eval.models
            for mode in self._modes()
            for split in self.settings.eval.splits
            for task in tasks[split]
        ]

    def _modes(self) -> list[Deliberation]:
        for mode in self.settings.eval.deliberation:
            if mode not in get_args(Deliberation):
                raise UsageError(f"eval.deliberation: {mode!r} is unknown", f"use {', '.join(get_args(Deliberation))}")
        return cast(list[Deliberation], self.settings.eval.deliberation)

    def check(self, state: State) -> None:
        """Raise `UsageError` if there is no task to evaluate on."""
        splits = ", ".join(self.settings.eval.splits)
        if not self.units():
            raise UsageError(
                f"there is no task to evaluate on in the splits {splits} of {self.context.world.name}",
                "name other splits in eval.splits, or other tasks in env.tasks",
            )

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Start the environments; models are loaded one after the other, beginning with the first that has work."""
        recorded = self.artifact.recorded()
        unit = next(open_units(self, recorded), None) if recorded is not None else None
        first = self._evaluated[unit.payload.model] if unit else self.model()
        async with EngineHolder(self.context, first) as self._engines, self.context.pool() as self.pool:
            yield

    async def step(self, unit: Unit[Trial], earlier: Episode | None) -> Episode:
        """Play one episode at temperature 0."""
        async with self._engines.for_model(self._evaluated[unit.payload.model]) as engine:
            return await self._episode(engine, unit.payload)

    async def _episode(self, engine: Engine, trial: Trial) -> Episode:
        settings, world = self.settings.agent, self.context.world
        session = await self.pool.restore(trial.task)
        try:
            sampling = Sampling(max_tokens=settings.max_tokens, stop=STOP)
            history = conversation(self.context.preamble, session.reset.instruction, [])
            limit, opening = world.step_limit(trial.task), TURN_OPENINGS[trial.deliberation]
            played = await play(engine, session, history, lambda _: sampling, limit, settings, opening)
        finally:
            await session.close()
        if played.end == "context" and not played.steps:
            raise preamble_too_long(f"{trial.task}, for the model {trial.model},")
        return Episode(
            split=trial.split,
            task=trial.task,
            model=trial.model,
            instruction=session.reset.instruction,
            steps=played.steps,
            reward=session.best,
            success=session.best >= 1.0,
            end=played.end,
            deliberated=sum(step.deliberated for step in played.steps),
            tokens=played.tokens,
            deliberation=trial.deliberation,
        )

    def metrics(self, records: Iterable[Episode]) -> Metrics:
        """The average reward of every model and split."""
        rewards: dict[str, list[float]] = {}
        tokens = 0
        for episode in records:
            agent = agent_name(episode.model, episode.deliberation)
            rewards.setdefault(f"reward {agent} {episode.split}", []).append(episode.reward)
            tokens += episode.tokens
        return Metrics(figures={name: round(fmean(found), 4) for name, found in rewards.items()}, tokens=tokens)
