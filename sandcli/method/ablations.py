"""Which steps are deliberated and among which actions: the whole method, and its ablations (paper, Table 3). Pure.

The whole method weighs the sampled actions by their critiques. Without `critique` it weighs the sampled actions as they
are; without `sampling` the base model thinks of the other actions itself, at every step. Without `deliberations`, a
control of ours, no step is deliberated. A baseline, Early Experience, weighs them by their outcomes.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, Protocol

from sandcli.agent.turns import normalise
from sandcli.method.deliberation import FlaggedStep, Option
from sandcli.method.inconsistency import ExpertStep
from sandcli.records import Critique, Key, Rollout, Sample, Trajectory

Without = Literal["none", "sampling", "critique", "deliberations"]

Variant = Without | Literal["outcomes"]

PROMPTS: Mapping[Variant, str] = {
    "none": "deliberate",
    "critique": "compare",
    "sampling": "propose",
    "outcomes": "reflect",
}
"""The prompt file of each variant that asks the base model."""


def variant_of(method: str, without: Without) -> Variant:
    """How the steps of a method, or of an ablation of sand, are deliberated."""
    return "outcomes" if method == "early-experience" else without


class Critiques(Protocol):
    """Critiques by (trajectory, step, candidate)."""

    def having(self, keys: list[Key]) -> list[Critique]:
        """Those with these keys, as far as there are any."""


def judged(flagged: Iterable[tuple[Sample, ExpertStep]], critiques: Critiques) -> Iterator[FlaggedStep]:
    """The whole method: flagged steps whose candidates all have a critique."""
    for sample, at in flagged:
        keys: list[Key] = [(sample.id, sample.step, number) for number in range(len(sample.candidates) + 1)]
        found = critiques.having(keys)
        if [normalise(critique.action) for critique in found] == [c.action for c in sample.candidates]:
            yield FlaggedStep(at, [Option(c.action, c.critique) for c in found])


def unjudged(flagged: Iterable[tuple[Sample, ExpertStep]]) -> Iterator[FlaggedStep]:
    """Without critique: flagged steps, with nothing known about the candidates but their actions."""
    for sample, at in flagged:
        others = [Option(candidate.action) for candidate in sample.candidates[1:]]
        yield FlaggedStep(at, [Option(at.expert.action), *others])


def every_step(trajectories: Iterable[Trajectory]) -> Iterator[FlaggedStep]:
    """Without sampling: every step, since no samples show where the agent is inconsistent."""
    for trajectory in trajectories:
        for t, step in enumerate(trajectory.steps):
            yield FlaggedStep(ExpertStep(trajectory, t), [Option(step.action)])


def after_switches(flagged: Iterable[FlaggedStep], replaced: Mapping[str, Rollout]) -> Iterator[FlaggedStep]:
    """The same steps if some rollouts replace the rest of their trajectories.

    At the switch the thought must end in the candidate. What follows was not sampled: the next iteration looks at it.
    """
    for step in flagged:
        rollout = replaced.get(step.at.trajectory.id)
        if rollout is None or step.at.t < rollout.step:
            yield step
        elif step.at.t == rollout.step:
            yield step._replace(chosen=rollout.candidate)
