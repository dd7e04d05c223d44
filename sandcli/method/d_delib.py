"""D_delib: the expert trajectories with their deliberations. (Algorithm 1.) Pure.

The history that is carried forward is the expert's own, h_t = (h_{t-1}, z_t, a_t, o_t): a deliberation changes the
thought at its own step only.
"""

from collections.abc import Iterable, Iterator, Mapping

from msgspec.structs import replace

from sandcli.method.expert_switch import switched
from sandcli.records import Rollout, Sample, Thought, Trajectory


def d_delib(
    trajectories: Iterable[Trajectory],
    thoughts: Iterable[Thought],
    samples: Iterable[Sample],
    failed: Iterable[str],
    replaced: Mapping[str, Rollout],
) -> Iterator[Trajectory]:
    """Every trajectory that was looked at, in order.

    Those with a record in `thoughts`, those without a flagged step, and those with a unit that `failed` for technical
    reasons: later iterations would lose them. A trajectory with flagged steps that nobody looked at would teach the
    agent not to deliberate there, so it is left out. `replaced` holds the rollouts that the expert was switched to.
    """
    written: dict[str, list[Thought]] = {}
    for thought in thoughts:
        written.setdefault(thought.id, []).append(thought)
    flags = [(sample.id, sample.deliberate) for sample in samples]
    plain = {name for name, _ in flags} - {name for name, flagged in flags if flagged}
    included = written.keys() | plain | set(failed)
    for trajectory in trajectories:
        if trajectory.id in included:
            yield deliberated(trajectory, replaced.get(trajectory.id), written.get(trajectory.id, []))


def undeliberated(trajectories: Iterable[Trajectory], replaced: Mapping[str, Rollout]) -> Iterator[Trajectory]:
    """The control: every trajectory of D_exp with its original thoughts; the expert is switched as in D_delib."""
    for trajectory in trajectories:
        yield deliberated(trajectory, replaced.get(trajectory.id), ())


def deliberated(trajectory: Trajectory, replacement: Rollout | None, thoughts: Iterable[Thought]) -> Trajectory:
    """The deliberation trajectory e~: deliberations in place of the original thoughts at flagged steps.

    A step without a deliberation keeps its thought. `replacement` is the rollout that the expert was switched to.
    """
    followed = switched(trajectory, replacement) if replacement else trajectory
    written = {thought.step: thought.thought for thought in thoughts if thought.thought and _fits(thought, replacement)}
    steps = [
        replace(step, thought=written[t], deliberated=True) if t in written else step
        for t, step in enumerate(followed.steps)
    ]
    return replace(followed, steps=steps)


def _fits(thought: Thought, replacement: Rollout | None) -> bool:
    """Whether a thought decides for what is done at its step; one that was kept although stale may not."""
    if replacement is None or thought.step < replacement.step:
        return thought.candidate == 0
    return (thought.step, thought.candidate) == (replacement.step, replacement.candidate)
