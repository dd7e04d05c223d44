"""`sand eval`: greedy episodes on held-out tasks. The agent writes its deliberation in the same pass as its action."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sandcli.engines.base import Engine, Sampling
from sandcli.envs.workers import Pool
from sandcli.episode import Limits, play
from sandcli.models import fingerprint, locate
from sandcli.prompts import digest as text_digest
from sandcli.react import conversation
from sandcli.records import Episode, Task
from sandcli.report.tables import summarise
from sandcli.run import Identity
from sandcli.stages.context import Context
from sandcli.stages.job import Do, Figures, Job, LeftOut, Unit
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
            },
            inputs={name: fingerprint(self._folder(name)) for name in evaluated.models},
            scope={
                "splits": ",".join(evaluated.splits),
                "tasks": ",".join(settings.env.tasks),
                "limit": str(self.context.limit),
            },
        )

    def _folder(self, model: str) -> Path:
        match model:
            case "model":
                return self.context.scripted or self.run.needs("train")
            case "sft":
                return self.context.scripted or self.run.needs("sft")
            case "base":
                return self.context.base()
        return self.context.scripted or locate(model)

    def plan(self) -> list[Unit[Trial]]:
        """The first tasks of every split, once a model; `--limit` counts tasks a split."""
        evaluated = self.context.settings.eval
        prints = {model: fingerprint(self._folder(model)) for model in evaluated.models}
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
        seats = _OneModel(self.context)
        try:
            async with self.context.pool() as pool:

                async def do(unit: Unit[Trial], earlier: Episode | None) -> Episode | LeftOut:
                    async with seats.engine(self._folder(unit.payload.model)) as engine:
                        return await self._episode(engine, pool, unit.payload)

                yield do
        finally:
            seats.close()

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
        episodes = list(records)
        values = {f"reward {row.model} {row.split}": round(row.reward.mean, 4) for row in summarise(episodes)}
        return Figures(values=values, tokens=sum(episode.tokens for episode in episodes))


class _OneModel:
    """Holds one model at a time; who needs another waits until the last user of this one is done."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._folder: Path | None = None
        self._open: Any = None
        self._engine: Engine | None = None
        self._users = 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def engine(self, folder: Path) -> AsyncIterator[Engine]:
        async with self._changed:
            await self._changed.wait_for(lambda: self._folder == folder or self._users == 0)
            if self._folder != folder:
                self.close()
                self._open = self._context.engine(folder)
                self._engine, self._folder = self._open.__enter__(), folder
            self._users += 1
        assert self._engine is not None
        try:
            yield self._engine
        finally:
            async with self._changed:
                self._users -= 1
                self._changed.notify_all()

    def close(self) -> None:
        if self._open is not None:
            self._open.__exit__(None, None, None)
            self._open = self._folder = None
