"""The data of a planner's SFT, with which MPO (arXiv 2503.02682) begins: the best plan of each task. Pure."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from msgspec.structs import replace

from sandcli.episodes import Episode
from sandcli.messages import Message
from sandcli.method.preferences import mean_rewards
from sandcli.records import Step, Task, Trajectory

Ask = Callable[[str], Sequence[Message]]
"""What a planner is asked about a task, by its instruction."""


def best_plans(trajectories: Iterable[Trajectory], episodes: Iterable[Episode], ask: Ask) -> Iterator[Trajectory]:
    """The plan of each task with the highest mean reward, the first of equals, unless all of them earned nothing.

    It is a trajectory of one turn, the plan. The instruction is the end of the question, whose beginning is the
    preamble.
    """
    played: dict[Task, list[Episode]] = {}
    for episode in episodes:
        played.setdefault(episode.task, []).append(episode)
    for task, expert in {each.task: each for each in trajectories}.items():
        means = mean_rewards(played.get(task, ()))
        best = max(means, key=means.__getitem__, default=None)
        if best is None or not means[best]:
            continue
        said = Step(thought=best.text, action="", observation="", score=means[best])
        question = ask(expert.instruction)[-1].content
        success, source = means[best] >= 1, f"plan, draw {best.draw}"
        yield replace(expert, instruction=question, steps=[said], reward=means[best], success=success, source=source)
