"""`sand knowledge`: the policy writes down what it learns from expert trajectories. (WKM, a baseline.)"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from sandcli.core.run import D_INFORMED, D_WKM
from sandcli.core.stage import Metrics, Skipped, Stage, State, Unit
from sandcli.engines.base import Model, Sampling
from sandcli.episodes import Episode
from sandcli.errors import ContextOverflow
from sandcli.messages import Message
from sandcli.method.texts import format_steps, on_one_line, paragraphs
from sandcli.method.world_knowledge import conversations, informed
from sandcli.records import Key, Knowledge, Task, Trajectory, as_lines
from sandcli.stages.inputs import COLLECT_MORE, must_hold

STATE_TOKENS = 128
"""The longest state knowledge, in tokens, as its authors limit it."""


class Place(NamedTuple):
    """A step of an expert trajectory; at the first one, the policy's own episode on the task, if there is one."""

    trajectory: Trajectory
    step: int
    attempt: Episode | None = None


class KnowledgeStage(Stage[Place, Knowledge]):
    """Units are (trajectory, step)."""

    name = "knowledge"
    tables = ("run", "plan", "prompts", "engine")
    prompts = ("lesson", "state")

    def reads(self) -> tuple[Path, ...]:
        """D_exp, and the policy's own episodes."""
        return self.run.artifact("collect").require(), self.run.artifact("explore").require()

    def models(self) -> dict[str, Model]:
        """pi_k."""
        return {"policy": self.context.policy()}

    def units(self) -> Iterator[Unit[Place]]:
        """Every step: for the first one, the whole trajectory and the policy's own; for others, what was before."""
        explored, worst = self.run.explored(), self._worst()
        for trajectory in self.run.trajectories():
            attempt = explored.get(worst[trajectory.task]) if trajectory.task in worst else None
            compared = (trajectory.steps, trajectory.reward, attempt)
            yield Unit((trajectory.id, 0), Place(trajectory, 0, attempt), (trajectory.instruction, *compared))
            for t in range(1, len(trajectory.steps)):
                before = (trajectory.instruction, trajectory.steps[:t])
                yield Unit((trajectory.id, t), Place(trajectory, t), before)

    def _worst(self) -> dict[Task, Key]:
        """The policy's worst episode on every task."""
        found: dict[Task, tuple[float, Key]] = {}
        for episode in self.run.explored():
            found[episode.task] = min((episode.reward, episode.key), found.get(episode.task, (2.0, ())))
        return {task: key for task, (_, key) in found.items()}

    def check(self, state: State) -> None:
        """Raise `UsageError` for an empty D_exp."""
        must_hold(self.run.artifact("collect").require(), Trajectory, COLLECT_MORE)

    async def step(self, unit: Unit[Place], earlier: Knowledge | None) -> Knowledge | Skipped:
        """Write task knowledge, or state knowledge."""
        place, plan = unit.payload, self.settings.plan
        if place.step == 0 and place.attempt is None:
            return Skipped("the policy did not play the task")
        longest = STATE_TOKENS if place.step else plan.max_tokens
        sampling = Sampling(1, plan.temperature, longest, self.seed("knowledge", *unit.key))
        try:
            (written,) = await self.engine.generate(self._question(place), sampling)
        except ContextOverflow:
            return Skipped("what it is written from does not fit into the policy's context")
        text = on_one_line(written.text) if place.step else paragraphs(written.text)
        if not text:
            return Skipped("the policy wrote nothing")
        return Knowledge(id=place.trajectory.id, step=place.step, text=text, tokens=written.tokens)

    def _question(self, place: Place) -> list[Message]:
        trajectory, shown = place.trajectory, self.settings.prompts.history_tokens
        if place.attempt is None:
            history = format_steps(trajectory.steps[: place.step], shown)
            return self.context.prompts.fill("state", instruction=trajectory.instruction, history=history)
        return self.context.prompts.fill(
            "lesson",
            instruction=trajectory.instruction,
            expert=format_steps(trajectory.steps, shown),
            expert_reward=f"{trajectory.reward:.2f}",
            attempt=format_steps(place.attempt.steps, shown),
            reward=f"{place.attempt.reward:.2f}",
        )

    def derive(self, records: Iterable[Knowledge]) -> dict[str, Iterable[bytes]]:
        """What the agent and the world-knowledge model learn from."""
        written = list(records)
        made = {D_INFORMED: informed(self.run.trajectories(), written)}
        made[D_WKM] = conversations(self.run.trajectories(), written)
        return {name: as_lines(data) for name, data in made.items()}

    def metrics(self, records: Iterable[Knowledge]) -> Metrics:
        """What was written."""
        written = list(records)
        counts = {"task_knowledge": sum(each.step == 0 for each in written)}
        return Metrics(counts=counts, tokens=sum(each.tokens for each in written))
