"""WKM (arXiv 2405.14205), a baseline: world knowledge for an agent, and the words of its next action. Pure.

Task knowledge is what helps with a kind of task, state knowledge where the agent stands. A world-knowledge model writes
both. Its conversation has the form of an episode: task knowledge answers the task, state knowledge every observation.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from sandcli.agent.conversation import with_plan
from sandcli.agent.turns import normalise
from sandcli.episodes import GivenPlan
from sandcli.errors import UsageError
from sandcli.messages import Message
from sandcli.prompts import Prompts
from sandcli.records import Knowledge, Step, Trajectory

_TASK = "the task"


def known(text: str, step: Step) -> Step:
    """A turn of the world-knowledge model, and what it is told next: what the agent did and observed."""
    told = f"{step.observation}\nLast action: {step.action or 'none'}"
    return Step(thought=text, action="", observation=told, score=step.score)


def knowledge_preamble(prompts: Prompts) -> list[Message]:
    """What a world-knowledge model reads before a task. Raises `UsageError` if its question is more than the task."""
    *preamble, question = prompts.fill("know", instruction=_TASK)
    if question != Message("user", _TASK):
        raise UsageError(
            "the prompt know.md does not end with the task alone", "end it with `# user` and {instruction}"
        )
    return preamble


def informed(trajectories: Iterable[Trajectory], knowledge: Iterable[Knowledge]) -> Iterator[Trajectory]:
    """What the agent learns from: the expert's trajectories, task knowledge added to the task."""
    lessons = {each.id: each for each in knowledge if each.step == 0}
    for trajectory in trajectories:
        if lesson := lessons.get(trajectory.id):
            plan = GivenPlan(draw=0, text=lesson.text, tokens=lesson.tokens)
            yield replace(trajectory, instruction=with_plan(trajectory.instruction, plan))


def conversations(trajectories: Iterable[Trajectory], knowledge: Iterable[Knowledge]) -> Iterator[Trajectory]:
    """What the world-knowledge model learns from: all that was written about a trajectory, up to the first gap."""
    texts = {each.key: each.text for each in knowledge}
    for trajectory in trajectories:
        steps = []
        for t, step in enumerate(trajectory.steps):
            if (trajectory.id, t) not in texts:
                break
            steps.append(known(texts[trajectory.id, t], step))
        if steps:
            yield replace(trajectory, steps=steps)


class Entry(NamedTuple):
    """A state of an expert trajectory: its state knowledge, and the first words of the actions before and after it."""

    state: str
    before: str
    word: str


def entries(trajectories: Iterable[Trajectory], knowledge: Iterable[Knowledge]) -> Iterator[Entry]:
    """The knowledge base: every state in which an expert acted, but for the first of each trajectory."""
    actions = {trajectory.id: trajectory.actions for trajectory in trajectories}
    for each in knowledge:
        own = actions.get(each.id, [])
        if 0 < each.step < len(own):
            yield Entry(each.text, first_word(own[each.step - 1]), first_word(own[each.step]))


def first_word(action: str) -> str:
    """The first word of an action, as actions are compared; empty if there is none."""
    return normalise(action).partition(" ")[0]


def shares(found: Sequence[Entry], before: str) -> dict[str, float]:
    """How often each word comes next in states that were reached in the same way; nothing if there is no such state."""
    counts = Counter(entry.word for entry in found if entry.before == before)
    return {word: count / counts.total() for word, count in counts.items()}


def mixed(own: Mapping[str, float], known: Mapping[str, float], weight: float) -> dict[str, float]:
    """The probabilities of the next word: the agent's own, which count `weight`, and those of the knowledge base.

    `own` need not add up to 1: only these words compete. If the agent thinks of none of them, knowledge decides alone.
    """
    total = sum(own.values())
    return {
        word: (weight * own.get(word, 0.0) / total if total else 0.0) + (1 - weight) * known.get(word, 0.0)
        for word in sorted(own.keys() | known.keys())
    }
