"""Preference pairs: which of two continuations of one history earned more. Pure.

Baselines learn from them, ETO (arXiv 2403.02502) above all: the expert's trajectory against the policy's own on the
same task. SAND's rollouts give pairs of single steps: the expert's action against another candidate, each with what
followed.
"""

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

from sandcli.agent.conversation import conversation, turn_messages
from sandcli.episodes import Episode, GivenPlan
from sandcli.messages import Message, as_said
from sandcli.records import Key, Origin, Pair, Rollout, Step, Trajectory


class Continuation(NamedTuple):
    """Steps to the end of an episode, and what the episode earned."""

    steps: Sequence[Step]
    reward: float
    origin: Origin


class Comparison(NamedTuple):
    """The expert's continuation of a trajectory after its first `shared` steps, and another one; see `Pair.place`."""

    trajectory: Trajectory
    shared: int
    other: Continuation
    place: tuple[int, ...]

    @property
    def key(self) -> Key:
        """That of its pair."""
        return (self.trajectory.id, *self.place)

    @property
    def expert(self) -> Continuation:
        """The rest of the expert trajectory."""
        return Continuation(self.trajectory.steps[self.shared :], self.trajectory.reward, "expert")


def with_episode(trajectory: Trajectory, episode: Episode) -> Comparison:
    """A whole expert trajectory and an episode of the policy on its task (ETO)."""
    return Comparison(trajectory, 0, Continuation(episode.steps, episode.reward, "explored"), (episode.draw,))


def with_rollout(trajectory: Trajectory, rollout: Rollout) -> Comparison:
    """An expert trajectory from one step on, and the rollout of another candidate of that step."""
    other = Continuation(rollout.steps, rollout.reward, "rollout")
    return Comparison(trajectory, rollout.step, other, (rollout.step, rollout.candidate))


def pair(compared: Comparison, extra_turns: int) -> Pair | str:
    """The pair, or the reason why there is none.

    The continuation with the higher reward is chosen. The rejected one is cut to `extra_turns` turns more than the
    chosen one has; 0 leaves it whole. A chosen one must hold an action in every turn: it would teach the agent to say
    turns without any.
    """
    expert, other = compared.expert, compared.other
    if expert.reward == other.reward:
        return "both earned the same"
    chosen, rejected = (expert, other) if expert.reward > other.reward else (other, expert)
    if not all(step.action for step in chosen.steps):
        return "the better one has a turn without an action"
    kept = rejected.steps[: len(chosen.steps) + extra_turns] if extra_turns else rejected.steps
    said, instead = _turns(chosen.steps), _turns(kept)
    if not said or not instead:
        return "one of them has no turn"
    if said == instead[: len(said)]:
        return "the worse one begins with all turns of the better one"
    trajectory, shared = compared.trajectory, compared.shared
    return Pair(
        id=trajectory.id,
        place=list(compared.place),
        task=trajectory.task,
        prompt=as_said(conversation([], trajectory.instruction, trajectory.steps[:shared])),
        chosen=as_said(said),
        rejected=as_said(instead),
        chosen_reward=chosen.reward,
        rejected_reward=rejected.reward,
        chosen_from=chosen.origin,
        rejected_from=rejected.origin,
    )


def plan_pair(trajectory: Trajectory, question: Sequence[Message], episodes: Iterable[Episode]) -> Pair | str:
    """The plan of a task with the highest mean reward against the one with the lowest (MPO, arXiv 2503.02682).

    `question` is what the planner was asked. Of equal means, the first counts.
    """
    means = mean_rewards(episodes)
    if not means:
        return "no plan was played"
    best, worst = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
    if means[best] == means[worst]:
        return "all plans earned the same"
    if best.text == worst.text:
        return "the best and the worst plan are the same text"
    return Pair(
        id=trajectory.id,
        place=[],
        task=trajectory.task,
        prompt=as_said(question),
        chosen=as_said([Message("assistant", best.text)]),
        rejected=as_said([Message("assistant", worst.text)]),
        chosen_reward=means[best],
        rejected_reward=means[worst],
        chosen_from="plan",
        rejected_from="plan",
    )


def mean_rewards(episodes: Iterable[Episode]) -> dict[GivenPlan, float]:
    """The mean reward of the episodes that were played with each plan of a task, by plan, in order."""
    rewards: dict[GivenPlan, list[float]] = {}
    for episode in episodes:
        if episode.plan is not None:
            rewards.setdefault(episode.plan, []).append(episode.reward)
    return {plan: fmean(own) for plan, own in sorted(rewards.items(), key=lambda item: item[0].draw)}


def _turns(steps: Sequence[Step]) -> list[Message]:
    """The messages of some steps, up to the agent's last turn."""
    return [message for step in steps for message in turn_messages(step)][:-1]
