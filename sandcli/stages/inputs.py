"""What several stages read: samples and rollouts, each with the expert step that it belongs to."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from sandcli.agent.turns import normalise
from sandcli.core.artifact import StageName
from sandcli.core.run import Run
from sandcli.core.store import Keyed, Records
from sandcli.errors import PrerequisiteError, UsageError
from sandcli.method.critique import Case
from sandcli.method.expert_switch import Rule, switches
from sandcli.method.inconsistency import ExpertStep
from sandcli.records import Rollout, Sample, Trajectory

COLLECT_MORE = "run sand collect with other tasks or a larger --limit"
"""What to do about an empty D_exp."""


def flagged_samples(run: Run) -> Iterator[tuple[Sample, ExpertStep]]:
    """The inconsistent steps (Eq. 4), in order. Raises `PrerequisiteError` if D_exp is not what was sampled from."""
    trajectories = run.trajectories()
    for sample in run.samples():
        if sample.deliberate and (sample.id,) in trajectories:
            trajectory = trajectories.get((sample.id,))
            _refuse_unlike(run, trajectory, sample.step, sample.expert_action, "sample")
            yield sample, ExpertStep(trajectory, sample.step)


def rollout_cases(run: Run) -> Iterator[Case]:
    """Every rollout, in order. Raises `PrerequisiteError` if D_exp is not what was rolled out from."""
    trajectories = run.trajectories()
    for rollout in run.rollouts():
        if (rollout.id,) in trajectories:
            trajectory = trajectories.get((rollout.id,))
            if rollout.expert:
                _refuse_unlike(run, trajectory, rollout.step, rollout.action, "rollout")
            yield Case(ExpertStep(trajectory, rollout.step), rollout)


def must_hold(path: Path, record: type[Keyed], fix: str) -> None:
    """Raise `UsageError` for a file without a record: there would be nothing to do."""
    if not any(True for _ in Records(path, record)):
        raise UsageError(f"{path} holds no {record.__name__.lower()}", fix)


def replacements(run: Run, rule: Rule) -> Mapping[str, Rollout]:
    """The rollouts that replace the rest of an expert trajectory (the expert switch), by trajectory."""
    if rule == "never":
        return {}
    return switches({trajectory.id: trajectory for trajectory in run.trajectories()}, run.rollouts(), rule)


def preamble_too_long(where: str) -> UsageError:
    """The error for a conversation that does not even fit before the agent's first turn."""
    return UsageError(
        f"the preamble and the task of {where} leave no room for a turn of agent.max_tokens in the model's context",
        "use a shorter preamble (agent.preamble) or a model with more context, or lower agent.max_tokens",
    )


def _refuse_unlike(run: Run, trajectory: Trajectory, t: int, action: str, stage: StageName) -> None:
    if t < len(trajectory.steps) and normalise(trajectory.steps[t].action) == normalise(action):
        return
    artifact = run.artifact(stage)
    raise PrerequisiteError(
        f"{artifact.path} was made from other expert trajectories: {trajectory.id}, step {t}",
        f"{artifact.command} --force",
    )
