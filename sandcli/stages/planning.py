"""Plans: how a planner writes one, and the plans of an evaluation, which are written before its agents are loaded."""

from asyncio import Semaphore, gather
from collections.abc import Iterable
from typing import Any, NamedTuple

from sandcli.core.context import Context, model_fingerprint
from sandcli.engines.base import Engine, Model, Sampling
from sandcli.episodes import GivenPlan
from sandcli.errors import MachineryError
from sandcli.prompts import digest
from sandcli.records import Task
from sandcli.stages.evaluated import ModelsStage


class Advice(NamedTuple):
    """What a planner wrote; `text` may be empty."""

    text: str
    tokens: int


async def advise(context: Context, engine: Engine, instruction: str, sampling: Sampling) -> Advice:
    """Ask a planner for the plan of a task."""
    (answer,) = await engine.generate(context.planner_question(instruction), sampling)
    return Advice(answer.text.strip(), answer.tokens)


class Planning:
    """The greedy plans of an evaluation, by its tasks."""

    def __init__(self, stage: ModelsStage[Any, Any], planner: Model) -> None:
        self.planner = planner
        self.plans: dict[Task, GivenPlan] = {}
        self._stage = stage

    def depends_on(self) -> dict[str, str]:
        """What the plans depend on."""
        context = self._stage.context
        return {
            "planner": model_fingerprint(self.planner.folder),
            f"prompt.{context.planner_prompt}": digest(context.prompts.load(context.planner_prompt)),
            "plan.max_tokens": str(context.settings.plan.max_tokens),
        }

    async def write(self, tasks: Iterable[Task]) -> None:
        """Write the plans of these tasks. One that fails is left out: its unit tries it again."""
        room = Semaphore(self._stage.context.in_flight(1))

        async def write(task: Task) -> None:
            async with room:
                if not self._stage.stop():
                    await self.of(task)

        for failed in await gather(*map(write, tasks), return_exceptions=True):
            if failed is not None and not isinstance(failed, MachineryError):
                raise failed

    async def of(self, task: Task) -> GivenPlan:
        """The task's plan, written now unless it is there."""
        if task not in self.plans:
            stage = self._stage
            session = await stage.pool.restore(task)
            await session.close()
            sampling = Sampling(max_tokens=stage.context.settings.plan.max_tokens)
            async with stage.engines.for_model(self.planner) as engine:
                advice = await advise(stage.context, engine, session.reset.instruction, sampling)
            self.plans[task] = GivenPlan(draw=0, text=advice.text, tokens=advice.tokens)
        return self.plans[task]
