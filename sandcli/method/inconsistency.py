"""Where does the agent disagree with itself or with the expert? (Paper, Eq. 4.) Pure."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from sandcli.agent.turns import normalise
from sandcli.records import Candidate, Draw, Sample, Step, Trajectory


class ExpertStep(NamedTuple):
    """Step t of an expert trajectory, counted from 0."""

    trajectory: Trajectory
    t: int

    @property
    def prefix(self) -> list[Step]:
        """The steps before it; with the instruction they are the history h_{t-1}."""
        return self.trajectory.steps[: self.t]

    @property
    def expert(self) -> Step:
        """What the expert did."""
        return self.trajectory.steps[self.t]


def candidates(expert_action: str, draws: Sequence[Draw]) -> list[Candidate]:
    """The unique actions {a^(1), ..., a^(N), a_t}, normalised, with how often each was sampled; the expert's first."""
    counts = Counter({normalise(expert_action): 0})
    counts.update(normalise(draw.action) for draw in draws)
    return [Candidate(action=action, count=count) for action, count in counts.items()]


def is_inconsistent(unique: Sequence[Candidate]) -> bool:
    """1_delib(t): more than one unique action, the expert's included.

    Algorithm 1 as printed skips a step if its action set is empty, which never happens; Eq. 4 skips it if the set has
    one member.
    """
    return len(unique) > 1


def sample_record(at: ExpertStep, draws: list[Draw], drawn: int) -> Sample:
    """The record of one step after `drawn` completions, of which `draws` could be read."""
    unique = candidates(at.expert.action, draws)
    return Sample(
        id=at.trajectory.id,
        step=at.t,
        expert_action=at.expert.action,
        samples=draws,
        drawn=drawn,
        unparsable=drawn - len(draws),
        candidates=unique,
        deliberate=is_inconsistent(unique),
    )
