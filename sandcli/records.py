"""The record types: what one line of each artifact holds.

Fields are written in the order of their declaration, and text is written as text, so that people can read the files.
Every record has a `key`: the unit of work it belongs to, and its place in the artifact's canonical order.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from sandcli.messages import Said

Share = Annotated[float, Meta(ge=0, le=1)]
"""A score or reward."""

Count = Annotated[int, Meta(ge=0)]
"""A count, or a place in a list."""

Key = tuple[str | int, ...]
End = Literal["done", "max_steps", "invalid_actions", "context"]
"""Why an episode ended: the task is over, the step limit, too many invalid actions in a row, or a full context."""

_UNPAIRED = re.compile(r"[\ud800-\udfff]")


def storable(text: str) -> tuple[str, int]:
    """The text with U+FFFD for every character that UTF-8 cannot hold (a lone surrogate), and how many there were."""
    return _UNPAIRED.subn("\ufffd", text)


def encoded(value: object) -> bytes:
    """The value as JSON, with U+FFFD for every character that UTF-8 cannot hold."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return storable(json.dumps(msgspec.to_builtins(value), ensure_ascii=False))[0].encode()


def as_lines(records: Iterable[object]) -> Iterator[bytes]:
    """Records as the lines of a JSONL file."""
    return (encoded(record) + b"\n" for record in records)


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all records: immutable, strict about its fields."""


class Task(Record, frozen=True, kw_only=True, omit_defaults=True):
    """One task of a text world: its type, and either a variation of that type by number or a game on disk."""

    name: str
    variation: int | None = None
    game: str | None = None

    def __str__(self) -> str:
        return self.game or f"{self.name}_{self.variation}"

    @property
    def key(self) -> Key:
        """Its place among the other tasks of its world."""
        return (self.name, self.game or self.variation or 0)


class Step(Record, frozen=True, kw_only=True):
    """One turn of the agent, and the observation that followed.

    `thought` may be empty; then the turn is the action alone. `score` is the episode's score after the step.
    `deliberated` says whether the thought weighs alternatives (see `agent.form.is_deliberation`).
    """

    thought: str
    action: str
    observation: str
    score: Share
    deliberated: bool = False


FROM_FILE = "file:"
"""How the source of a recorded trajectory begins."""


class Trajectory(Record, frozen=True, kw_only=True):
    """A line of expert.jsonl (D_exp) and deliberations.jsonl (D_delib): one complete episode.

    `reward` is the best score reached. `source` says where the trajectory comes from, such as `gold`.
    """

    id: str
    env: str
    task: Task
    instruction: str
    steps: Annotated[list[Step], Meta(min_length=1)]
    reward: Share
    success: bool
    source: str

    @property
    def key(self) -> Key:
        return (self.id,)

    @property
    def recorded(self) -> bool:
        """Whether others recorded it; otherwise the world's expert made it."""
        return self.source.startswith(FROM_FILE)

    @property
    def actions(self) -> list[str]:
        """The actions of all steps, in order."""
        return [step.action for step in self.steps]


class Draw(Record, frozen=True, kw_only=True):
    """One completion of the policy that could be read as a turn. `tokens` counts generated tokens."""

    thought: str
    action: str
    tokens: Count


class Candidate(Record, frozen=True, kw_only=True):
    """A unique normalised action of one step, and how many of the samples chose it."""

    action: str
    count: Count


class Sample(Record, frozen=True, kw_only=True):
    """A line of samples.jsonl: N draws of the policy at one step of an expert trajectory.

    `candidates[0]` is the expert's action; the others follow in the order in which they were first drawn. `deliberate`
    is the paper's Eq. 4: true if there is more than one candidate. `drawn` counts all completions, readable or not; 0
    means that the step's history does not fit into the policy's context.
    """

    id: str
    step: Count
    expert_action: str
    samples: list[Draw]
    drawn: Count
    unparsable: Count
    candidates: Annotated[list[Candidate], Meta(min_length=1)]
    deliberate: bool

    @property
    def key(self) -> Key:
        return (self.id, self.step)


class Rollout(Record, frozen=True, kw_only=True):
    """A line of rollouts.jsonl: one candidate executed after the expert's prefix, and what followed.

    `steps` starts with the candidate's own step. Candidate 0 is the expert's action; its rollout is the rest of the
    expert trajectory. `reward` is the best score of the whole episode, prefix included.
    """

    id: str
    step: Count
    candidate: Count
    action: str
    thought: str
    expert: bool
    count: Count
    steps: Annotated[list[Step], Meta(min_length=1)]
    reward: Share
    success: bool
    end: End
    tokens: Count

    @property
    def key(self) -> Key:
        return (self.id, self.step, self.candidate)


class Critique(Record, frozen=True, kw_only=True):
    """A line of critiques.jsonl: the base model's critique of one candidate, from what its rollout led to."""

    id: str
    step: Count
    candidate: Count
    action: str
    reward: Share
    critique: str
    tokens: Count

    @property
    def key(self) -> Key:
        return (self.id, self.step, self.candidate)


class Thought(Record, frozen=True, kw_only=True):
    """A line of thoughts.jsonl: the deliberation of one flagged step.

    `thought` is empty if no attempt passed the checks; the step then keeps its original thought. `rejected` gives the
    failed check of each rejected attempt. `candidate` is the candidate that the step continues with: 0, the expert's,
    unless the expert was switched.
    """

    id: str
    step: Count
    thought: str
    attempts: Count
    rejected: list[str]
    tokens: Count
    candidate: Count = 0

    @property
    def key(self) -> Key:
        return (self.id, self.step)


class Plan(Record, frozen=True, kw_only=True):
    """A line of plans.jsonl: what a planner advises for one training task. `draw` tells the plans of a task apart."""

    task: Task
    draw: Count
    plan: str
    tokens: Count

    @property
    def key(self) -> Key:
        return (*self.task.key, self.draw)


class Knowledge(Record, frozen=True, kw_only=True):
    """A line of knowledge.jsonl: what the policy wrote about one step of an expert trajectory.

    At step 0 that is task knowledge: what helps with such a task, from a comparison with the policy's own episode. At
    later steps it is state knowledge: where the agent stands before the expert's action.
    """

    id: str
    step: Count
    text: str
    tokens: Count

    @property
    def key(self) -> Key:
        return (self.id, self.step)


Origin = Literal["expert", "explored", "rollout", "plan"]
"""Where a side of a pair comes from: the expert, an episode of the policy, a rollout of a candidate, or a planner."""


class Pair(Record, frozen=True, kw_only=True):
    """A line of pairs.jsonl: two continuations of one conversation, of which `chosen` earned more.

    `place` is the draw of the explored episode, or the step and the candidate of the rollout. `prompt` is the
    conversation before both, without the preamble. `chosen` and `rejected` begin and end with a turn of the agent. If
    they are plans, the reward is the mean of the episodes that were played with each.
    """

    id: str
    place: list[Count]
    task: Task
    prompt: list[Said]
    chosen: Annotated[list[Said], Meta(min_length=1)]
    rejected: Annotated[list[Said], Meta(min_length=1)]
    chosen_reward: Share
    rejected_reward: Share
    chosen_from: Origin
    rejected_from: Origin

    @property
    def key(self) -> Key:
        return (self.id, *self.place)


class Failure(Record, frozen=True, kw_only=True):
    """A unit that could not be done for technical reasons. It says nothing about the task; a rerun tries it again."""

    unit: list[str | int]
    reason: str
    detail: str
    attempts: Count

    @property
    def key(self) -> Key:
        return tuple(self.unit)
