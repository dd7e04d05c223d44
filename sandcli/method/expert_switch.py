"""The expert switch: a candidate that did better than the expert takes its place. (Paper, section 3; optional.) Pure.

The paper switches on ALFWorld. On ScienceWorld it does not: shortcuts raise training scores there and hurt test scores.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

from msgspec.structs import replace

from sandcli.records import Rollout, Trajectory

Rule = Literal["never", "better", "shorter"]


def switches(trajectories: Mapping[str, Trajectory], rollouts: Iterable[Rollout], rule: Rule) -> dict[str, Rollout]:
    """The rollout that replaces the rest of an expert trajectory, by trajectory; most have none.

    A rollout must have earned strictly more than the expert, or, by the rule `shorter`, as much in fewer steps. A
    rollout that ended early for other reasons does not count. Of several, the best is taken, then the shortest, then
    the earliest.
    """
    best: dict[str, Rollout] = {}
    for rollout in rollouts:
        trajectory = trajectories.get(rollout.id)
        if trajectory is None or not _surpasses(rollout, trajectory, rule):
            continue
        if rollout.id not in best or _merit(rollout) > _merit(best[rollout.id]):
            best[rollout.id] = rollout
    return best


def _surpasses(rollout: Rollout, trajectory: Trajectory, rule: Rule) -> bool:
    if rule == "never" or rollout.expert or not _is_complete(rollout):
        return False
    if rollout.reward > trajectory.reward:
        return True
    fewer = rollout.step + len(rollout.steps) < len(trajectory.steps)
    return rule == "shorter" and rollout.reward == trajectory.reward and fewer


def _is_complete(rollout: Rollout) -> bool:
    """Whether every turn holds an action, and neither invalid actions nor a full context ended the rollout."""
    return rollout.end in ("done", "max_steps") and all(step.action for step in rollout.steps)


def _merit(rollout: Rollout) -> tuple[float, int]:
    return rollout.reward, -(rollout.step + len(rollout.steps))


def switched(trajectory: Trajectory, rollout: Rollout) -> Trajectory:
    """The trajectory that follows the rollout from its step on; `source` says so."""
    return replace(
        trajectory,
        steps=[*trajectory.steps[: rollout.step], *rollout.steps],
        reward=rollout.reward,
        success=rollout.success,
        source=f"{trajectory.source}; from step {rollout.step} on candidate {rollout.candidate} instead of the expert",
    )
