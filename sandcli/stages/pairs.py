"""`sand pairs`: preference pairs from what was explored or rolled out. (Baselines learn from them.)"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import fmean

from sandcli.core.artifact import StageName
from sandcli.core.run import trains_planner
from sandcli.core.stage import Metrics, Skipped, Stage, Unit
from sandcli.method.preferences import Comparison, pair, plan_pair, with_episode, with_rollout
from sandcli.prompts import digest
from sandcli.records import Key, Pair, Task
from sandcli.stages.inputs import rollout_cases

Made = Pair | str
"""A pair, or the reason why there is none."""


class PairsStage(Stage[Made, Pair]):
    """Units are (trajectory, draw), (trajectory, step, candidate), or, for plans, trajectories."""

    name = "pairs"
    tables = ("pairs",)
    can_use_cluster = False

    def reads(self) -> tuple[Path, ...]:
        """D_exp, and what its trajectories are compared with."""
        source: StageName = "rollout" if self._source == "rollouts" else "explore"
        return self.run.artifact("collect").require(), self.run.artifact(source).require()

    def depends_on(self) -> dict[str, str]:
        """Whether plans are compared, and what their planner was asked, which is in the pairs."""
        asked = {"prompt.plan": digest(self.context.prompts.load("plan"))} if self._source == "plans" else {}
        return {"method.name": self.context.settings.method.name, **asked}

    @property
    def _source(self) -> str:
        return "plans" if trains_planner(self.context.settings) else self.settings.pairs.source

    def units(self) -> Iterator[Unit[Made]]:
        """Every comparison of an expert trajectory with something else, or of the plans of its task."""
        match self._source:
            case "plans":
                compared = self._plans()
            case "rollouts":
                compared = self._compared(self._rollouts())
            case _:
                compared = self._compared(self._episodes())
        return (Unit(key, made, (made,)) for key, made in compared)

    def _compared(self, comparisons: Iterable[Comparison]) -> Iterator[tuple[Key, Made]]:
        for comparison in comparisons:
            yield comparison.key, pair(comparison, self.settings.pairs.extra_turns)

    def _episodes(self) -> Iterator[Comparison]:
        explored, played = self.run.explored(), self._played()
        for trajectory in self.run.trajectories():
            for key in played.get(trajectory.task, ()):
                yield with_episode(trajectory, explored.get(key))

    def _rollouts(self) -> Iterator[Comparison]:
        return (with_rollout(at.trajectory, rollout) for at, rollout in rollout_cases(self.run) if not rollout.expert)

    def _plans(self) -> Iterator[tuple[Key, Made]]:
        explored, played = self.run.explored(), self._played()
        for trajectory in {each.task: each for each in self.run.trajectories()}.values():
            question = self.context.planner_question(trajectory.instruction)
            episodes = map(explored.get, played.get(trajectory.task, ()))
            yield trajectory.key, plan_pair(trajectory, question, episodes)

    def _played(self) -> dict[Task, list[Key]]:
        """The explored episodes of every task."""
        played: dict[Task, list[Key]] = {}
        for episode in self.run.explored():
            played.setdefault(episode.task, []).append(episode.key)
        return played

    async def step(self, unit: Unit[Made], earlier: Pair | None) -> Pair | Skipped:
        """Nothing is left to do: comparing is quick."""
        return unit.payload if isinstance(unit.payload, Pair) else Skipped(unit.payload)

    def metrics(self, records: Iterable[Pair]) -> Metrics:
        """How often each origin was chosen, and by how much the better one did."""
        counts, gaps = Counter[str](), []
        for made in records:
            counts[f"{made.chosen_from}_chosen"] += 1
            gaps.append(made.chosen_reward - made.rejected_reward)
        return Metrics(counts=dict(counts), figures={"mean_gap": round(fmean(gaps), 4) if gaps else 0.0})
