"""`sand eval`: episodes on held-out tasks. The agent writes its deliberation in the same pass as its action."""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean
from typing import cast, get_args

from msgspec.structs import replace

from sandcli.core.planner import open_units
from sandcli.core.stage import Metrics, State, Unit
from sandcli.engines.base import Model, Sampling
from sandcli.episodes import Deliberation, Episode, agent_name
from sandcli.errors import UsageError
from sandcli.progress import notice
from sandcli.records import Key, Task
from sandcli.stages.evaluated import ModelsStage
from sandcli.stages.informing import Informing
from sandcli.stages.planning import Planning
from sandcli.stages.playing import Trial, play_trial


class EvalStage(ModelsStage[Trial, Episode]):
    """Units are (split, task, model, draw). Models are compared unit by unit."""

    name = "eval"

    def reads(self) -> tuple[Path, ...]:
        """Nothing but models."""
        return ()

    def depends_on(self) -> dict[str, str]:
        """The run's seed, unless the agent is greedy, and what its plans depend on, if it is given any."""
        seed = {"run.seed": str(self.context.settings.run.seed)} if self.settings.eval.temperature else {}
        return seed | {name: value for part in self._parts() for name, value in part.depends_on().items()}

    def _parts(self) -> list[Planning | Informing]:
        return [part for part in (self._planning, self._informing) if part]

    @cached_property
    def _planning(self) -> Planning | None:
        planner = self.settings.eval.planner
        return Planning(self, self.named(planner)) if planner else None

    @cached_property
    def _informing(self) -> Informing | None:
        return Informing(self, self.named("wkm")) if self.settings.eval.planner == "wkm" else None

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
        if self._planning and self.context.settings.cluster.address:
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
        """The planner, if it has a plan to write."""
        return self._planning.planner if self._planning and self._unplanned() else super().first_model()

    def _unplanned(self) -> set[Task]:
        """The tasks still to be played that have no plan."""
        recorded = self.artifact.recorded()
        trials = self.units() if recorded is None else open_units(self, recorded)
        return {unit.payload.task for unit in trials} - (self._planning.plans.keys() if self._planning else set())

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Let the planner write its plans before the agents are loaded."""
        if self._planning:
            self._planning.plans |= {each.task: each.plan for each in self.artifact.recorded() or () if each.plan}
        async with super().opened():
            if self._planning and (tasks := self._unplanned()):
                notice(f"plans to write: {len(tasks)}")
                await self._planning.write(tasks)
            if self._informing and self._informing.active:
                await self._informing.open(super().first_model())
            yield

    async def step(self, unit: Unit[Trial], earlier: Episode | None) -> Episode:
        """Play one episode. The tokens of its plan count."""
        trial = unit.payload
        if self._planning:
            trial = trial._replace(plan=await self._planning.of(trial.task))
        async with self.engines.for_model(self.evaluated[trial.model]) as engine:
            episode = await play_trial(self, engine, trial, partial(self._sampling, unit.key), self._informing)
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
