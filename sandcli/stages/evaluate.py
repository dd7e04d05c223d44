"""`sand eval`: greedy episodes on held-out tasks. The agent writes its deliberation in the same pass as its action."""

from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import NamedTuple, cast, get_args

from sandcli.agent.conversation import conversation
from sandcli.agent.episode import play
from sandcli.agent.form import TURN_OPENINGS
from sandcli.core.stage import Metrics, State, Unit
from sandcli.engines.base import Engine
from sandcli.errors import UsageError
from sandcli.records import Deliberation, Episode, Task, agent_name
from sandcli.stages.evaluated import ModelsStage
from sandcli.stages.inputs import preamble_too_long


class Trial(NamedTuple):
    """One task for one model."""

    split: str
    task: Task
    model: str
    deliberation: Deliberation


class EvalStage(ModelsStage[Trial, Episode]):
    """Units are (split, task, model). Models are compared unit by unit."""

    name = "eval"

    def reads(self) -> tuple[Path, ...]:
        """Nothing but models."""
        return ()

    def units(self) -> list[Unit[Trial]]:
        """The first tasks of every split, once for each model; `--limit` counts the tasks of a split."""
        prints = self.model_hashes()
        tasks = {split: self.tasks(split) for split in self.settings.eval.splits}
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
        """Raise `UsageError` if there is no task to evaluate on, or if the episodes are of another panel."""
        super().check(state)
        splits = ", ".join(self.settings.eval.splits)
        if not self.units():
            raise UsageError(
                f"there is no task to evaluate on in the splits {splits} of {self.context.world.name}",
                "name other splits in eval.splits, or other tasks in env.tasks",
            )

    async def step(self, unit: Unit[Trial], earlier: Episode | None) -> Episode:
        """Play one episode at temperature 0."""
        async with self.engines.for_model(self.evaluated[unit.payload.model]) as engine:
            return await self._episode(engine, unit.payload)

    async def _episode(self, engine: Engine, trial: Trial) -> Episode:
        settings, world = self.settings.agent, self.context.world
        session = await self.pool.restore(trial.task)
        try:
            history = conversation(self.context.preamble, session.reset.instruction, [])
            limit, opening = world.step_limit(trial.task), TURN_OPENINGS[trial.deliberation]
            played = await play(engine, session, history, lambda _: self.sampling, limit, settings, opening)
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
        """The average reward of every agent and split, and its success rates by both definitions that papers use."""
        found: dict[str, list[float]] = {}
        tokens = 0
        for episode in records:
            of = f"{agent_name(episode.model, episode.deliberation)} {episode.split}"
            successes = {"reward 1": episode.success, "episode done": episode.end == "done"}
            figures = {"reward": episode.reward, **{f"success ({name})": own for name, own in successes.items()}}
            for name, value in figures.items():
                found.setdefault(f"{name} {of}", []).append(value)
            tokens += episode.tokens
        return Metrics(figures={name: round(fmean(values), 4) for name, values in found.items()}, tokens=tokens)
