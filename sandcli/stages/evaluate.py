"""`sand eval`: greedy episodes on held-out tasks. The agent writes its deliberation in the same pass as its action."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from statistics import fmean
from typing import NamedTuple

from sandcli.agent.episode import Limits, play
from sandcli.agent.turns import conversation
from sandcli.core.context import Context
from sandcli.core.planner import open_units
from sandcli.core.run import Identity
from sandcli.core.stage import Do, Figures, Job, LeftOut, Unit
from sandcli.core.store import Records
from sandcli.engines.base import Engine, Model, Sampling
from sandcli.envs.pool import Pool
from sandcli.models import fingerprint
from sandcli.prompts import digest as text_digest
from sandcli.records import Episode, Task
from sandcli.stages.sample import STOP


class Trial(NamedTuple):
    """One task for one model."""

    split: str
    task: Task
    model: str


class EvalJob(Job[Trial, Episode]):
    """Units are (split, task, model)."""

    stage = "eval"
    record = Episode
    may_hold_more = True

    def identity(self) -> Identity:
        """How the agent acts, and the world; the models are compared unit by unit."""
        settings, evaluated = self.context.settings, self.context.settings.eval
        return Identity(
            settings={
                "agent.max_tokens": str(settings.agent.max_tokens),
                "agent.max_invalid": str(settings.agent.max_invalid),
                "env.step_limit": str(settings.env.step_limit),
                "prompt.instruction": text_digest(self.context.world.system),
                **self.context.environment(),
                **self.context.context(),
            },
            inputs={name: fingerprint(self._named(name).folder) for name in evaluated.models},
            scope={
                "splits": ",".join(evaluated.splits),
                "tasks": ",".join(settings.env.tasks),
                "limit": str(self.context.limit),
            },
        )

    def model(self) -> Model:
        """The first of those that are evaluated."""
        return self._named(self.context.settings.eval.models[0])

    def _named(self, model: str) -> Model:
        match model:
            case "model":
                return self.context.scripted or self.context.made("train")
            case "sft":
                return self.context.scripted or self.context.made("sft")
            case "base":
                return self.context.base()
        return self.context.scripted or self.context.model(model)

    def plan(self) -> list[Unit[Trial]]:
        """The first tasks of every split, once a model; `--limit` counts tasks a split."""
        evaluated = self.context.settings.eval
        prints = {model: fingerprint(self._named(model).folder) for model in evaluated.models}
        tasks = {split: self.context.world.tasks(split)[: self.context.limit] for split in evaluated.splits}
        return [
            Unit((split, *task.key, model), prints[model], Trial(split, task, model))
            for model in evaluated.models
            for split in evaluated.splits
            for task in tasks[split]
        ]

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Do[Trial, Episode]]:
        """Start the environments; models are loaded one after the other."""
        async with AsyncExitStack() as stack:
            seat = await stack.enter_async_context(Seat(self.context, self._first()))
            pool = await stack.enter_async_context(self.context.pool())

            async def do(unit: Unit[Trial], earlier: Episode | None) -> Episode | LeftOut:
                async with seat.engine(self._named(unit.payload.model)) as engine:
                    return await self._episode(engine, pool, unit.payload)

            yield do

    def _first(self) -> Model:
        """The first model that has something to do."""
        with closing(Records(self.run.journal(self.stage), Episode)) as records:
            unit = next(open_units(self, records), None)
        return self._named(unit.payload.model) if unit else self.model()

    async def _episode(self, engine: Engine, pool: Pool, trial: Trial) -> Episode:
        settings, world = self.context.settings, self.context.world
        session = await pool.restore(trial.task)
        try:
            sampling = Sampling(max_tokens=settings.agent.max_tokens, stop=STOP)
            limits = Limits(world.step_limit(trial.task), settings.agent.max_invalid)
            history = conversation(world.system, session.reset.instruction, [])
            played = await play(engine, session, history, lambda _: sampling, limits)
            reward = session.best
        finally:
            await session.close()
        return Episode(
            split=trial.split,
            task=trial.task,
            model=trial.model,
            instruction=session.reset.instruction,
            steps=played.steps,
            reward=reward,
            success=reward >= 1.0,
            end=played.end,
            deliberated=sum(step.deliberated for step in played.steps),
            tokens=played.tokens,
        )

    def figures(self, records: Iterable[Episode]) -> Figures:
        """The average reward of every model and split."""
        rewards: dict[str, list[float]] = {}
        tokens = 0
        for episode in records:
            rewards.setdefault(f"reward {episode.model} {episode.split}", []).append(episode.reward)
            tokens += episode.tokens
        return Figures(values={name: round(fmean(found), 4) for name, found in rewards.items()}, tokens=tokens)


class Seat:
    """Holds one engine at a time; who needs another waits until the last user of this one is done."""

    def __init__(self, context: Context, first: Model) -> None:
        self._context = context
        self._first = first
        self._users = 0
        self._beside: dict[Model, Engine | None] = {}
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> "Seat":
        await self._load(self._first)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def _load(self, model: Model) -> None:
        self._open = AsyncExitStack()
        self._engine = await self._open.enter_async_context(self._context.engine(model))
        self._beside = {model: self._engine}

    async def _served(self, model: Model) -> Engine | None:
        """The engine that is open as this model, where it can be."""
        if model not in self._beside:
            self._beside[model] = await self._engine.for_model(model)
        return self._beside[model]

    @asynccontextmanager
    async def engine(self, model: Model) -> AsyncIterator[Engine]:
        """The engine as this model; an adapter is served beside its base, without a change."""
        async with self._changed:
            while await self._served(model) is None and self._users:
                await self._changed.wait()
            engine = await self._served(model)
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
