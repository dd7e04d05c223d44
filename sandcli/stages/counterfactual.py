"""`sand counterfactual`: if the agent deliberated at a step, what would it have done without, and what came of that?

It takes the freely played episodes of `sand eval`. At every step that was deliberated, the same weights are asked again
from the same history for a turn that begins with its action.
"""

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from sandcli.agent.conversation import conversation, turn_messages, with_plan
from sandcli.agent.episode import Played, play
from sandcli.agent.form import TURN_OPENINGS
from sandcli.core.stage import Metrics, Skipped, State, Unit, digest_of, unit_name
from sandcli.engines.base import Engine
from sandcli.envs.pool import Session
from sandcli.episodes import Counterfactual, Episode
from sandcli.errors import PrerequisiteError, UsageError
from sandcli.records import Step
from sandcli.stages.evaluated import ModelsStage, panel_again


class DeliberatedStep(NamedTuple):
    """A step of an episode at which the agent chose to deliberate."""

    episode: Episode
    t: int

    @property
    def model(self) -> str:
        """The model that played the episode."""
        return self.episode.model

    @property
    def prefix(self) -> list[Step]:
        """The steps before it."""
        return self.episode.steps[: self.t]

    @property
    def taken(self) -> Step:
        """What the agent did after deliberating."""
        return self.episode.steps[self.t]


class CounterfactualStage(ModelsStage[DeliberatedStep, Counterfactual]):
    """Units are (split, task, model, step)."""

    name = "counterfactual"

    def reads(self) -> tuple[Path, ...]:
        """The evaluated episodes."""
        return (self.run.artifact("eval").require(),)

    def units(self) -> Iterator[Unit[DeliberatedStep]]:
        """Every deliberated step of the freely played episodes, one model after the other."""
        prints = self.model_hashes()
        for episode in self._episodes():
            told = with_plan(episode.instruction, episode.plan)
            depends_on = (prints[episode.model], told, episode.reward)
            for t, step in enumerate(episode.steps):
                if step.deliberated:
                    yield Unit((*episode.key, t), DeliberatedStep(episode, t), (*depends_on, episode.steps[: t + 1]))

    def _episodes(self) -> Iterator[Episode]:
        tasks = {(split, *task.key) for split in self.settings.eval.splits for task in self.tasks(split)}
        for model in self.settings.eval.models:
            for episode in self.run.episodes():
                free = episode.deliberation == "free" and episode.model == model
                if free and (episode.split, *episode.task.key) in tasks:
                    yield episode

    def check(self, state: State) -> None:
        """Raise `UsageError` if no episode was played freely and greedily, or if turns must have thoughts.

        Raises `PrerequisiteError` if other weights played an episode, or if the episodes are of another panel.
        """
        super().check(state)
        self._refuse_other_panel()
        if self.settings.agent.thought == "required":
            raise UsageError(
                "counterfactual steps are taken without a thought, and agent.thought is required",
                "set agent.thought to optional",
            )
        if self.settings.eval.temperature:
            raise UsageError(
                f"counterfactual steps are greedy, and eval.temperature is {self.settings.eval.temperature}",
                "set eval.temperature to 0 and evaluate again",
            )
        self._refuse_other_weights()
        if next(self._episodes(), None) is None:
            models, splits = (",".join(names) for names in (self.settings.eval.models, self.settings.eval.splits))
            raise UsageError(
                f"{self.run.artifact('eval').path} holds no freely played episode of {models} on {splits}",
                self._eval_command(f"--models {models} --splits {splits} --deliberation free"),
            )

    def _refuse_other_weights(self) -> None:
        played, prints = self.run.artifact("eval").digests(), self.model_hashes()
        for episode in self._episodes():
            now = digest_of(prints[episode.model])
            if played.get(unit_name(episode.key), now) != now:
                raise PrerequisiteError(
                    f"{episode.model} was trained again after its episodes were played",
                    self._eval_command(f"--models {episode.model} --force"),
                )

    def _refuse_other_panel(self) -> None:
        made = self.run.artifact("eval").manifest()
        played = made.identity.settings.get("panel") if made else None
        panel = self.context.named_panel.panel.hash if self.context.named_panel else None
        if played != panel:
            names = [f"the panel {name}" if name else "no panel" for name in (played, panel)]
            raise PrerequisiteError(
                f"{self.run.artifact('eval').path} was played on {names[0]}, not on {names[1]}",
                f"--panel {panel_again(made)} is the one that sand eval had",
            )

    def _eval_command(self, options: str) -> str:
        panel = f"--panel {shlex.quote(self.context.named_panel.name)} " if self.context.named_panel else ""
        return f"{self.run.artifact('eval').command} {panel}{options}"

    async def step(self, unit: Unit[DeliberatedStep], earlier: Counterfactual | None) -> Counterfactual | Skipped:
        """Take one step without deliberating; if that is another action, play on."""
        at = unit.payload
        async with self.engines.for_model(self.evaluated[at.model]) as engine:
            # A turn without an action did not touch the world.
            session = await self.pool.restore(at.episode.task, [step for step in at.prefix if step.action])
            try:
                played = await self._play(engine, session, at)
            finally:
                await session.close()
        return _record(at, played, session.best) if played.steps else Skipped("the context is full")

    async def _play(self, engine: Engine, session: Session, at: DeliberatedStep) -> Played:
        settings, world = self.settings.agent, self.context.world
        task = with_plan(session.reset.instruction, at.episode.plan)
        history = conversation(self.context.preamble, task, at.prefix)
        first = await play(engine, session, history, lambda _: self.sampling, 1, settings, TURN_OPENINGS["never"])
        if first.end != "max_steps" or first.steps[0].action == at.taken.action:
            return first
        history += turn_messages(first.steps[0])
        left = world.step_limit(at.episode.task) - at.t - 1
        rest = await play(engine, session, history, lambda _: self.sampling, left, settings)
        return Played([*first.steps, *rest.steps], rest.end, first.tokens + rest.tokens)

    def metrics(self, records: Iterable[Counterfactual]) -> Metrics:
        """How often deliberating changed the action, and how often that paid."""
        names = ("same_action", "other_action", "deliberating_earned_more", "as_much", "less")
        metrics = Metrics(counts=dict.fromkeys(names, 0))
        for record in records:
            metrics.tokens += record.tokens
            metrics.counts["same_action" if record.same else "other_action"] += 1
            if not record.same:
                more, less = record.reward > record.reward_without, record.reward < record.reward_without
                metrics.counts["deliberating_earned_more" if more else "less" if less else "as_much"] += 1
        return metrics


def _record(at: DeliberatedStep, played: Played, best: float) -> Counterfactual:
    episode = at.episode
    same = played.steps[0].action == at.taken.action
    return Counterfactual(
        split=episode.split,
        task=episode.task,
        model=episode.model,
        step=at.t,
        action=at.taken.action,
        reward=episode.reward,
        steps=played.steps,
        reward_without=episode.reward if same else best,
        end=episode.end if same else played.end,
        tokens=played.tokens,
    )
