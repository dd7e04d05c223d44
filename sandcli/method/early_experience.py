"""Early Experience, by self-reflection (arXiv 2510.08558): what do other actions lead to in one step? Pure.

A baseline, not part of the paper.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

from msgspec.structs import replace

from sandcli.agent.turns import normalise
from sandcli.method.deliberation import FlaggedStep, Option
from sandcli.method.inconsistency import ExpertStep
from sandcli.method.texts import on_one_line
from sandcli.records import Key, Rollout, Sample, Trajectory


class Rollouts(Protocol):
    """Rollouts by (trajectory, step, candidate)."""

    def having(self, keys: list[Key]) -> list[Rollout]:
        """Those with these keys, as far as there are any."""


def observed(flagged: Iterable[tuple[Sample, ExpertStep]], rollouts: Rollouts) -> Iterator[FlaggedStep]:
    """Flagged steps whose candidates were all executed, with what the world answered to each."""
    for sample, at in flagged:
        keys: list[Key] = [(sample.id, sample.step, number) for number in range(len(sample.candidates))]
        found = rollouts.having(keys)
        if [normalise(rollout.action) for rollout in found] == [c.action for c in sample.candidates]:
            yield FlaggedStep(at, [Option(rollout.action, outcome(rollout)) for rollout in found])


def outcome(rollout: Rollout) -> str:
    """The observation after a rollout's own action, and whether the episode ended there; no reward."""
    over = len(rollout.steps) == 1 and rollout.end == "done"
    return on_one_line(rollout.steps[0].observation) + (" The episode is over." if over else "")


def mixed(experts: Iterable[Trajectory], reflected: Iterable[Trajectory]) -> Iterator[Trajectory]:
    """The data that the policy learns from: the trajectories with reflections, then the experts of these."""
    changed = set()
    for trajectory in reflected:
        if any(step.deliberated for step in trajectory.steps):
            changed.add(trajectory.id)
        yield trajectory
    for expert in experts:
        if expert.id in changed:
            yield replace(expert, id=f"{expert.id} (expert)")
