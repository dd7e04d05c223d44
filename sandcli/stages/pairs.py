"""`sand pairs`: preference pairs from what was explored or rolled out. (Baselines learn from them.)"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import fmean

from sandcli.core.artifact import StageName
from sandcli.core.stage import Metrics, Skipped, Stage, Unit
from sandcli.method.preferences import Comparison, pair, with_episode, with_rollout
from sandcli.records import Key, Pair, Task
from sandcli.stages.inputs import rollout_cases


class PairsStage(Stage[Comparison, Pair]):
    """Units are (trajectory, draw), or (trajectory, step, candidate)."""

    name = "pairs"
    tables = ("pairs",)
    can_use_cluster = False

    def reads(self) -> tuple[Path, ...]:
        """D_exp, and what its trajectories are compared with."""
        source: StageName = "explore" if self.settings.pairs.source == "explored" else "rollout"
        return self.run.artifact("collect").require(), self.run.artifact(source).require()

    def units(self) -> Iterator[Unit[Comparison]]:
        """Every comparison of an expert trajectory with something else."""
        compared = self._episodes() if self.settings.pairs.source == "explored" else self._rollouts()
        return (Unit(comparison.key, comparison, comparison) for comparison in compared)

    def _episodes(self) -> Iterator[Comparison]:
        explored = self.run.explored()
        played: dict[Task, list[Key]] = {}
        for episode in explored:
            played.setdefault(episode.task, []).append(episode.key)
        for trajectory in self.run.trajectories():
            for key in played.get(trajectory.task, ()):
                yield with_episode(trajectory, explored.get(key))

    def _rollouts(self) -> Iterator[Comparison]:
        return (with_rollout(at.trajectory, rollout) for at, rollout in rollout_cases(self.run) if not rollout.expert)

    async def step(self, unit: Unit[Comparison], earlier: Pair | None) -> Pair | Skipped:
        """Choose the better one."""
        made = pair(unit.payload, self.settings.pairs.extra_turns)
        return made if isinstance(made, Pair) else Skipped(made)

    def metrics(self, records: Iterable[Pair]) -> Metrics:
        """How often the expert did better, and by how much the better one did."""
        counts, gaps = {"expert_chosen": 0, "expert_rejected": 0}, []
        for made in records:
            counts["expert_chosen" if made.chosen_from == "expert" else "expert_rejected"] += 1
            gaps.append(made.chosen_reward - made.rejected_reward)
        return Metrics(counts=counts, figures={"mean_gap": round(fmean(gaps), 4) if gaps else 0.0})
