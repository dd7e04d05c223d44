"""`sand rollout`: execute every candidate of a flagged step in the real environment, to the end. (Algorithm 1.)

The expert's action needs no rollout of its own: it is the rest of the expert trajectory, which is verified by replay.
With `rollout.max_steps`, a rollout ends after so many steps; with 1, only the candidate itself is executed.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec.structs import replace

from sandcli.core.stage import Metrics, Stage, Unit
from sandcli.engines.base import Model
from sandcli.records import Key, Rollout
from sandcli.stages.branches import Branch, BranchRunner, branches, step_limit
from sandcli.stages.inputs import flagged_samples


class RolloutStage(Stage[Branch, Rollout]):
    """Units are (trajectory, step, candidate)."""

    name = "rollout"
    tables = ("run", "rollout", "agent", "env", "engine")
    prompts = ("preamble",)
    plays = True

    def reads(self) -> tuple[Path, ...]:
        """D_exp and the samples."""
        return self.run.artifact("collect").require(), self.run.artifact("sample").require()

    def models(self) -> dict[str, Model]:
        """pi_k, if it acts."""
        return {"policy": self.context.policy()} if self.settings.rollout.max_steps != 1 else {}

    def units(self) -> Iterator[Unit[Branch]]:
        """Every candidate of every flagged step."""
        for sample, at in flagged_samples(self.run):
            for branch in branches(at, sample):
                limit = step_limit(self.context.world, at.trajectory)
                yield Unit((sample.id, sample.step, branch.candidate), branch, (*branch.depends_on, limit))

    def length(self, unit: Unit[Branch]) -> int:
        """The steps to the limit."""
        left = step_limit(self.context.world, unit.payload.at.trajectory) - unit.payload.at.t
        return min(left, self.settings.rollout.max_steps or left)

    def satisfied(self, unit: Unit[Branch], record: Rollout) -> bool:
        """No more samples have chosen the same action since."""
        return record.count == unit.payload.times_sampled

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Load the policy and start the environments."""
        async with super().opened():
            engine = self.engine if self.models() else None
            self._runner = BranchRunner(self.context, self.settings, engine, self.pool)
            yield

    async def step(self, unit: Unit[Branch], earlier: Rollout | None) -> Rollout:
        """Execute one candidate."""
        branch = unit.payload
        if earlier is not None:
            return replace(earlier, count=branch.times_sampled)
        return await (self._runner.expert(branch) if branch.candidate == 0 else self._runner.policy(branch, unit.key))

    def metrics(self, records: Iterable[Rollout]) -> Metrics:
        """How the rollouts compare with the expert's."""
        metrics = Metrics(counts={"flagged": 0, "better_than_expert": 0})
        rewards: list[float] = []
        experts: dict[Key, float] = {}
        for record in records:
            metrics.tokens += record.tokens
            if record.expert:
                experts[record.key[:2]] = record.reward
                metrics.counts["flagged"] += 1
            else:
                rewards.append(record.reward)
                metrics.counts["better_than_expert"] += record.reward > experts.get(record.key[:2], 1.0)
        metrics.figures["mean_reward"] = round(sum(rewards) / len(rewards), 4) if rewards else 0.0
        return metrics
