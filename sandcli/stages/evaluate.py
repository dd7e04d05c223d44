"""`sand eval`: episodes on held-out tasks. The agent writes its deliberation in the same pass as its action."""

from asyncio import Semaphore, gather
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean
from typing import cast, get_args

from sandcli.core.context import model_fingerprint
from sandcli.core.planner import open_units
from sandcli.core.stage import Metrics, State, Unit
from sandcli.engines.base import Engine, Model, Sampling
from sandcli.envs.pool import Pool
from sandcli.errors import UsageError
from sandcli.prompts import digest
from sandcli.records import Deliberation, Episode, GivenPlan, Key, Task, agent_name
from sandcli.stages.evaluated import ModelsStage
from sandcli.stages.playing import Trial, play_trial


class EvalStage(ModelsStage[Trial, Episode]):
    """Units are (split, task, model, draw). Models are compared unit by unit."""

    name = "eval"

    def reads(self) -> tuple[Path, ...]:
        """Nothing but models."""
        return ()

    def depends_on(self) -> dict[str, str]:
        """The run's seed, unless the agent is greedy, and what its plans depend on, if it is given any."""
        settings = self.context.settings
        seed = {"run.seed": str(settings.run.seed)} if settings.eval.temperature else {}
        if self._planner is None:
            return seed
        asked = {
            "prompt.plan": digest(self.context.prompts.load("plan")),
            "plan.max_tokens": str(settings.plan.max_tokens),
        }
        return {**seed, "planner": model_fingerprint(self._planner.folder), **asked}

    @cached_property
    def _planner(self) -> Model | None:
        return self.named(self.settings.eval.planner) if self.settings.eval.planner else None

    def units(self) -> list[Unit[Trial]]:
        """The first tasks of every split, n times for each model; `--limit` counts the tasks of a split."""
        prints = self.model_hashes()
        return [Unit(trial.key, trial, (prints[trial.model],)) for trial in self._trials()]

    def _trials(self) -> Iterator[Trial]:
        tasks = {split: self.tasks(split) for split in self.settings.eval.splits}
        for model in self.settings.eval.models:
            for mode in self._modes():
                for split in self.settings.eval.splits:
                    for task in tasks[split]:
                        for draw in range(self.settings.eval.n):
                            yield Trial(split, task, model, mode, draw)

    def _modes(self) -> list[Deliberation]:
        for mode in self.settings.eval.deliberation:
            if mode not in get_args(Deliberation):
                raise UsageError(f"eval.deliberation: {mode!r} is unknown", f"use {', '.join(get_args(Deliberation))}")
        return cast(list[Deliberation], self.settings.eval.deliberation)

    def check(self, state: State) -> None:
        """Raise `UsageError` if there is no task to evaluate on."""
        super().check(state)
        splits = ", ".join(self.settings.eval.splits)
        if not self.units():
            raise UsageError(
                f"there is no task to evaluate on in the splits {splits} of {self.context.world.name}",
                "name other splits in eval.splits, or other tasks in env.tasks",
            )

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Let the planner write its plans before the agents are loaded."""
        self._plans = await self._write_plans(self._planner) if self._planner else {}
        async with super().opened():
            yield

    async def _write_plans(self, planner: Model) -> dict[Task, GivenPlan]:
        """A greedy plan for every task that is still to be played."""
        recorded = self.artifact.recorded()
        trials = self.units() if recorded is None else open_units(self, recorded)
        tasks = list(dict.fromkeys(unit.payload.task for unit in trials))
        async with self.context.engine(planner) as engine, self.context.pool() as pool:
            room = Semaphore(self.context.in_flight(1))
            return dict(
                zip(tasks, await gather(*(self._plan(engine, pool, room, task) for task in tasks)), strict=True)
            )

    async def _plan(self, engine: Engine, pool: Pool, room: Semaphore, task: Task) -> GivenPlan:
        async with room:
            session = await pool.restore(task)
            await session.close()
            question = self.context.prompts.fill("plan", instruction=session.reset.instruction)
            sampling = Sampling(max_tokens=self.context.settings.plan.max_tokens)
            (answer,) = await engine.generate(question, sampling)
            return GivenPlan(draw=0, text=answer.text.strip())

    async def step(self, unit: Unit[Trial], earlier: Episode | None) -> Episode:
        """Play one episode."""
        trial = unit.payload._replace(plan=self._plans.get(unit.payload.task))
        async with self.engines.for_model(self.evaluated[trial.model]) as engine:
            return await play_trial(self, engine, trial, partial(self._sampling, unit.key))

    def _sampling(self, key: Key, turn: int) -> Sampling:
        """How a turn is sampled. Greedy turns need no seed."""
        temperature = self.settings.eval.temperature
        if not temperature:
            return self.sampling
        return self.sampling._replace(temperature=temperature, seed=self.context.seed("eval", *key, turn))

    def metrics(self, records: Iterable[Episode]) -> Metrics:
        """The average reward of every agent and split, and its success rates by both definitions that papers use.

        A task counts once, however many episodes it has.
        """
        found: dict[str, dict[Key, list[float]]] = {}
        tokens = 0
        for episode in records:
            of = f"{agent_name(episode.model, episode.deliberation)} {episode.split}"
            successes = {"reward 1": episode.success, "episode done": episode.end == "done"}
            figures = {"reward": episode.reward, **{f"success ({name})": own for name, own in successes.items()}}
            for name, value in figures.items():
                found.setdefault(f"{name} {of}", {}).setdefault(episode.task.key, []).append(value)
            tokens += episode.tokens
        means = {name: fmean(map(fmean, by_task.values())) for name, by_task in found.items()}
        return Metrics(figures={name: round(mean, 4) for name, mean in means.items()}, tokens=tokens)
