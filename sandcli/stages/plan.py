"""`sand plan`: a planner advises the policy on every training task, several times. (MPO, a baseline.)"""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from sandcli.core.stage import Metrics, Skipped, Stage, State, Unit
from sandcli.engines.base import Model, Sampling
from sandcli.records import Key, Plan, Task, Trajectory
from sandcli.stages.inputs import COLLECT_MORE, must_hold
from sandcli.stages.planning import advise


class Planned(NamedTuple):
    """A task, its instruction, and which of its plans to write."""

    task: Task
    instruction: str
    draw: int


class PlanStage(Stage[Planned, Plan]):
    """Units are (task, draw)."""

    name = "plan"
    tables = ("run", "plan", "engine")
    prompts = ("plan",)
    allow_extra = True

    def reads(self) -> tuple[Path, ...]:
        """D_exp."""
        return (self.run.artifact("collect").require(),)

    def models(self) -> dict[str, Model]:
        """The planner."""
        return {"planner": self.context.planner()}

    def units(self) -> Iterator[Unit[Planned]]:
        """The task of every expert trajectory, n times; `--limit` counts trajectories."""
        trajectories = islice(self.run.trajectories(), self.limit)
        for task, instruction in {each.task: each.instruction for each in trajectories}.items():
            for draw in range(self.settings.plan.n):
                yield Unit((*task.key, draw), Planned(task, instruction, draw), (instruction,))

    def begins_like(self, key: Key) -> Key:
        """The plans of a task."""
        return key[:-1]

    def check(self, state: State) -> None:
        """Raise `UsageError` for an empty D_exp."""
        must_hold(self.run.artifact("collect").require(), Trajectory, COLLECT_MORE)

    async def step(self, unit: Unit[Planned], earlier: Plan | None) -> Plan | Skipped:
        """Write one plan."""
        settings, planned = self.settings.plan, unit.payload
        sampling = Sampling(1, settings.temperature, settings.max_tokens, self.seed("plan", *unit.key))
        advice = await advise(self.context, self.engine, planned.instruction, sampling)
        if not advice.text:
            return Skipped("the planner wrote nothing")
        return Plan(task=planned.task, draw=planned.draw, plan=advice.text, tokens=advice.tokens)

    def metrics(self, records: Iterable[Plan]) -> Metrics:
        """What was written."""
        return Metrics(tokens=sum(plan.tokens for plan in records))
