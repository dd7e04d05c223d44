"""`sand eval`: episodes on held-out tasks. The agent writes its deliberation in the same pass as its action."""

from asyncio import Semaphore, gather
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean
from typing import cast, get_args

from msgspec.structs import replace

from sandcli.core.context import model_fingerprint
from sandcli.core.planner import open_units
from sandcli.core.stage import Metrics, State, Unit
from sandcli.engines.base import Model, Sampling
from sandcli.errors import MachineryError, UsageError
from sandcli.progress import notice
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
        """Raise `UsageError` if there is no task to evaluate on, or if every crew would write its own plans."""
        super().check(state)
        if self._planner and self.context.settings.cluster.address:
            raise UsageError(
                "eval.planner writes its plans before the evaluation, and --cluster has nobody to do so",
                "leave out --cluster",
            )
        splits = ", ".join(self.settings.eval.splits)
        if not self.units():
            raise UsageError(
                f"there is no task to evaluate on in the splits {splits} of {self.context.world.name}",
                "name other splits in eval.splits, or other tasks in env.tasks",
            )

    def first_model(self) -> Model:
        """The planner, if there is one."""
        return self._planner or super().first_model()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Let the planner write its plans before the agents are loaded."""
        self._plans = {episode.task: episode.plan for episode in self.artifact.recorded() or () if episode.plan}
        async with super().opened():
            if self._planner:
                await self._plan_all()
            yield

    async def _plan_all(self) -> None:
        """A greedy plan for every task that is still to be played. A task that fails is tried again in its unit."""
        recorded = self.artifact.recorded()
        trials = self.units() if recorded is None else open_units(self, recorded)
        tasks = {unit.payload.task for unit in trials} - self._plans.keys()
        notice(f"plans to write: {len(tasks)}")
        room = Semaphore(self.context.in_flight(1))

        async def plan(task: Task) -> None:
            async with room:
                if not self.stop():
                    await self._plan(task)

        for failed in await gather(*map(plan, tasks), return_exceptions=True):
            if failed is not None and not isinstance(failed, MachineryError):
                raise failed

    async def _plan(self, task: Task) -> GivenPlan | None:
        """The task's plan, written now unless it is there."""
        if self._planner and task not in self._plans:
            session = await self.pool.restore(task)
            await session.close()
            question = self.context.prompts.fill("plan", instruction=session.reset.instruction)
            async with self.engines.for_model(self._planner) as engine:
                sampling = Sampling(max_tokens=self.context.settings.plan.max_tokens)
                (answer,) = await engine.generate(question, sampling)
            self._plans[task] = GivenPlan(draw=0, text=answer.text.strip(), tokens=answer.tokens)
        return self._plans.get(task)

    async def step(self, unit: Unit[Trial], earlier: Episode | None) -> Episode:
        """Play one episode. The tokens of its plan count."""
        trial = unit.payload._replace(plan=await self._plan(unit.payload.task))
        async with self.engines.for_model(self.evaluated[trial.model]) as engine:
            episode = await play_trial(self, engine, trial, partial(self._sampling, unit.key))
        return replace(episode, tokens=episode.tokens + trial.plan.tokens) if trial.plan else episode

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
