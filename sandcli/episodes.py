"""The records of played episodes: what one line of eval.jsonl, explored.jsonl and counterfactuals.jsonl holds."""

from typing import Annotated, Literal

from msgspec import Meta

from sandcli.records import Count, End, Key, Record, Share, Step, Task


class GivenPlan(Record, frozen=True, kw_only=True):
    """The plan that an agent was given with its task, its number among the plans of the task, and its length."""

    draw: Count
    text: str
    tokens: Count


Deliberation = Literal["free", "never", "always"]
"""Whether an agent deliberates: as it chooses, never, or at every turn."""


class Episode(Record, frozen=True, kw_only=True):
    """A line of eval.jsonl or explored.jsonl: one episode of one model on one task of a split.

    `draw` tells the episodes of one task apart: 0 is the first. `plan` is the plan that the agent was given, if any.
    """

    split: str
    task: Task
    model: str
    instruction: str
    steps: list[Step]
    reward: Share
    success: bool
    end: End
    deliberated: Count
    tokens: Count
    deliberation: Deliberation = "free"
    draw: Count = 0
    plan: GivenPlan | None = None

    @property
    def key(self) -> Key:
        return episode_key(self.split, self.task, agent_name(self.model, self.deliberation), self.draw, self.plan)


def episode_key(split: str, task: Task, agent: str, draw: int, plan: GivenPlan | None) -> Key:
    """The key of an episode. The first one of a task, and the first plan, need no number."""
    numbers = (plan.draw, draw) if plan is not None and plan.draw else (draw,) if draw else ()
    return (split, *task.key, agent, *numbers)


def agent_name(model: str, deliberation: Deliberation) -> str:
    """A model as an agent: `model`, or `model, never deliberating`."""
    return model if deliberation == "free" else f"{model}, {deliberation} deliberating"


class Counterfactual(Record, frozen=True, kw_only=True):
    """A line of counterfactuals.jsonl: a step that the agent deliberated in an episode, taken without deliberating.

    In the episode, it took `action` after deliberating, and earned `reward`. `steps` starts with what the same weights
    do from the same history if the turn begins with its action. If that is another action, they go on as they choose,
    and earn `reward_without`. If it is the same action, nothing more is played and the rewards are equal.
    """

    split: str
    task: Task
    model: str
    step: Count
    action: str
    reward: Share
    steps: Annotated[list[Step], Meta(min_length=1)]
    reward_without: Share
    end: End
    tokens: Count

    @property
    def key(self) -> Key:
        return (self.split, *self.task.key, self.model, self.step)

    @property
    def same(self) -> bool:
        """Whether the agent takes the same action without deliberating."""
        return self.steps[0].action == self.action
