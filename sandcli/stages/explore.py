"""`sand explore`: the policy plays every training task several times. (Not in Algorithm 1: baselines build on it.)

The data of rft and knowagent is derived from the episodes: see `method.rejection_sampling` and `method.knowagent`.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import fmean

from sandcli.agent.conversation import STOP
from sandcli.core.run import LEARNING, trains_planner
from sandcli.core.stage import Metrics, Stage, State, Unit
from sandcli.engines.base import Model, Sampling
from sandcli.episodes import Episode, GivenPlan
from sandcli.method.best_plans import best_plans
from sandcli.method.knowagent import shortest_successes
from sandcli.method.rejection_sampling import d_rft, own_successes
from sandcli.prompts import digest
from sandcli.records import Key, Task, Trajectory, as_lines
from sandcli.stages.inputs import COLLECT_MORE, must_hold
from sandcli.stages.playing import Trial, play_trial

Made = Callable[[Iterable[Trajectory], Iterable[Episode]], Iterator[Trajectory]]

_DATA: Mapping[str, Made] = {"rft": d_rft, "knowagent": shortest_successes}
"""What a method learns from, by its name."""

_TAKEN: Mapping[str, Made] = {"rft": own_successes, "knowagent": shortest_successes}
"""The policy's own trajectories in it."""


class ExploreStage(Stage[Trial, Episode]):
    """Units are (task, draw), or (task, plan, draw)."""

    name = "explore"
    tables = ("run", "explore", "agent", "env", "engine")
    prompts = ("preamble",)
    plays = True
    allow_extra = True

    def reads(self) -> tuple[Path, ...]:
        """D_exp, and the plans if the policy is given any."""
        plans = [self.run.artifact("plan").require()] if trains_planner(self.context.settings) else []
        return self.run.artifact("collect").require(), *plans

    def models(self) -> dict[str, Model]:
        """pi_k."""
        return {"policy": self.context.policy()}

    def units(self) -> Iterator[Unit[Trial]]:
        """The task of every expert trajectory, n times (with each of its plans); `--limit` counts trajectories."""
        tasks = dict.fromkeys(trajectory.task for trajectory in islice(self.run.trajectories(), self.limit))
        for task, plan in self._with_plans(tasks):
            for draw in range(self.settings.explore.n):
                trial = Trial("train", task, "policy", draw=draw, plan=plan)
                yield Unit(trial.key, trial, (plan,) if plan else ())

    def _with_plans(self, tasks: Collection[Task]) -> Iterator[tuple[Task, GivenPlan | None]]:
        if not trains_planner(self.context.settings):
            yield from ((task, None) for task in tasks)
            return
        for plan in self.run.plans():
            if plan.task in tasks:
                yield plan.task, GivenPlan(draw=plan.draw, text=plan.plan, tokens=plan.tokens)

    def length(self, unit: Unit[Trial]) -> int:
        """The task's limit."""
        return self.context.world.step_limit(unit.payload.task)

    def begins_like(self, key: Key) -> Key:
        """The draws of a task."""
        return key[:-1]

    def check(self, state: State) -> None:
        """Raise `UsageError` for an empty D_exp: there would be nothing to play."""
        must_hold(self.run.artifact("collect").require(), Trajectory, COLLECT_MORE)

    async def step(self, unit: Unit[Trial], earlier: Episode | None) -> Episode:
        """Play one episode."""
        return await play_trial(self, self.engine, unit.payload, partial(self._sampling, unit.key))

    def _sampling(self, key: Key, turn: int) -> Sampling:
        temperature, max_tokens = self.settings.explore.temperature, self.settings.agent.max_tokens
        return Sampling(1, temperature, max_tokens, self.seed("explore", *key, turn), STOP)

    @property
    def _method(self) -> str:
        return self.context.settings.method.name

    def depends_on(self) -> dict[str, str]:
        """The method: it decides whether there are plans, and what is derived. A planner's data holds its questions."""
        asked = {"prompt.plan": digest(self.context.prompts.load("plan"))} if self._method == "mpo-sft" else {}
        return {"method.name": self._method, **asked}

    def derive(self, records: Iterable[Episode]) -> dict[str, Iterable[bytes]]:
        """The data of a method that learns from whole episodes, or from their plans."""
        if self._method == "mpo-sft":
            made = best_plans(self.run.trajectories(), records, self.context.planner_question)
        elif self._method in _DATA:
            made = _DATA[self._method](self.run.trajectories(), records)
        else:
            return {}
        return {LEARNING[self._method].data: as_lines(made)}

    def metrics(self, records: Iterable[Episode]) -> Metrics:
        """How well the policy played, and how many of its trajectories the method learns from."""
        episodes = list(records)
        counts = {"successful": sum(episode.success for episode in episodes)}
        if self._method in _TAKEN:
            taken = list(_TAKEN[self._method](self.run.trajectories(), episodes))
            counts["new_trajectories"] = len(taken)
            counts["tasks_with_new_trajectories"] = len({trajectory.task for trajectory in taken})
        figures = {"mean_reward": round(fmean(e.reward for e in episodes), 4) if episodes else 0.0}
        return Metrics(counts=counts, figures=figures, tokens=sum(episode.tokens for episode in episodes))
