"""The data of KnowAgent (arXiv 2403.03101): the policy's own successes, the shortest one of each task.

A baseline, not part of the paper. Pure. The agent is told rules of which action may follow which, and begins every
thought with its action path: `ActionPath: start -> go to -> take`.
"""

import re
from collections.abc import Iterable, Iterator

from sandcli.episodes import Episode
from sandcli.method.rejection_sampling import as_trajectory, is_clean_success
from sandcli.records import Task, Trajectory

_PATH = re.compile(r"\s*ActionPath:\s*start\b", re.IGNORECASE)


def shortest_successes(experts: Iterable[Trajectory], explored: Iterable[Episode]) -> Iterator[Trajectory]:
    """The policy's shortest success on each of the expert's tasks, in the experts' order; of equals the first.

    One is left out if a turn holds no action or no action path: it would teach the agent to say such turns.
    """
    shortest: dict[Task, Episode] = {}
    for episode in explored:
        if is_clean_success(episode) and all(has_action_path(step.thought) for step in episode.steps):
            best = shortest.setdefault(episode.task, episode)
            if len(episode.steps) < len(best.steps):
                shortest[episode.task] = episode
    for expert in experts:
        if expert.task in shortest:
            yield as_trajectory(shortest.pop(expert.task), expert, expert.id)


def has_action_path(thought: str) -> bool:
    """Whether a thought begins with an action path. Whether it names the actions that were taken is not checked."""
    return _PATH.match(thought) is not None
