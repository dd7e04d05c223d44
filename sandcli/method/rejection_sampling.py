"""D_rft, the data of rejection-sampling fine-tuning (RFT): the expert's trajectories and the policy's own successes.

A baseline, not part of the paper. Pure.
"""

from collections.abc import Iterable, Iterator

from sandcli.agent.turns import normalise
from sandcli.episodes import Episode
from sandcli.records import Task, Trajectory

Actions = tuple[str, ...]


def d_rft(experts: Iterable[Trajectory], explored: Iterable[Episode]) -> Iterator[Trajectory]:
    """Every expert trajectory, then the policy's own."""
    known = list(experts)
    yield from known
    yield from own_successes(known, explored)


def own_successes(experts: Iterable[Trajectory], explored: Iterable[Episode]) -> Iterator[Trajectory]:
    """The policy's own trajectories on the expert's tasks that earned the full reward, in order.

    One that holds a turn without an action is left out: it would teach the agent to say such turns. The same actions on
    the same task count once, and not at all if they are the expert's.
    """
    first: dict[Task, Trajectory] = {}
    found: dict[Task, set[Actions]] = {}
    for expert in experts:
        first.setdefault(expert.task, expert)
        found.setdefault(expert.task, set()).add(_actions(expert))
    for episode in explored:
        if episode.task not in first or not is_clean_success(episode):
            continue
        known = found[episode.task]
        actions = _actions(episode)
        if actions not in known:
            known.add(actions)
            expert = first[episode.task]
            yield as_trajectory(episode, expert, f"{expert.id} ({len(known)})")  # the expert's have the first numbers


def is_clean_success(episode: Episode) -> bool:
    """Whether an episode earned the full reward, and every turn of it holds an action."""
    return episode.success and all(step.action for step in episode.steps)


def _actions(played: Trajectory | Episode) -> Actions:
    return tuple(normalise(step.action) for step in played.steps)


def as_trajectory(episode: Episode, expert: Trajectory, name: str) -> Trajectory:
    """An episode on the expert's task as a trajectory with the id `name`."""
    return Trajectory(
        id=name,
        env=expert.env,
        task=episode.task,
        instruction=episode.instruction,
        steps=episode.steps,
        reward=episode.reward,
        success=episode.success,
        source=f"explored, draw {episode.draw}",
    )
