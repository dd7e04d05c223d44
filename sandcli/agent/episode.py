"""One agent in one environment, from the session's present state to the end of the episode."""

from collections.abc import Callable
from typing import NamedTuple

from sandcli.agent.conversation import turn_messages
from sandcli.agent.form import is_deliberation
from sandcli.agent.turns import normalise, parse
from sandcli.engines.base import Sampling, Speaker
from sandcli.envs.pool import Session
from sandcli.errors import ContextOverflow
from sandcli.messages import Message
from sandcli.records import End, Step
from sandcli.settings import AgentSettings


class Played(NamedTuple):
    """What the agent did. `tokens` counts what it generated."""

    steps: list[Step]
    end: End
    tokens: int


class Taken(NamedTuple):
    """One step that was executed: whether the episode is over, and whether the action was valid."""

    step: Step
    done: bool
    valid: bool

    def invalid_in_a_row(self, before: int, settings: AgentSettings) -> int:
        """How many invalid turns there are now in a row, if there were `before` before this one."""
        if self.valid:
            return 0
        kind = "action" if self.step.action else "turn"
        return before + (settings.invalid in ("any", kind))


def too_many(invalid: int, settings: AgentSettings) -> bool:
    """Whether so many invalid turns in a row end an episode."""
    return 0 < settings.max_invalid <= invalid


async def play(
    engine: Speaker,
    session: Session,
    history: list[Message],
    sampling: Callable[[int], Sampling],
    limit: int,
    settings: AgentSettings,
    opening: str = "",
) -> Played:
    """Let the agent act until the episode ends, for at most `limit` steps.

    `history` ends where the agent's next turn begins; `sampling(t)` gives the sampling of turn t, and every turn begins
    with `opening`. A turn that cannot be read costs a step and does not touch the world. A full context ends the
    episode and is recorded as such.
    """
    messages = list(history)
    begun = [Message("assistant", opening)] if opening else []
    steps: list[Step] = []
    tokens = invalid = 0
    end: End = "max_steps"
    while len(steps) < limit:
        try:
            (completion,) = await engine.generate([*messages, *begun], sampling(len(steps)))
        except ContextOverflow:
            end = "context"
            break
        tokens += completion.tokens
        taken = await take(session, f"{opening}{completion.text}", settings)
        steps.append(taken.step)
        messages += turn_messages(taken.step)
        invalid = taken.invalid_in_a_row(invalid, settings)
        if taken.done or too_many(invalid, settings):
            end = "done" if taken.done else "invalid_actions"
            break
    return Played(steps, end, tokens)


async def take(session: Session, text: str, settings: AgentSettings) -> Taken:
    """Execute what the agent said."""
    turn = parse(text, settings)
    if turn is None:
        said = Step(thought=text.strip(), action="", observation=settings.invalid_message, score=session.score)
        return Taken(said, done=False, valid=False)
    return await execute(session, turn.thought, normalise(turn.action))


async def execute(session: Session, thought: str, action: str) -> Taken:
    """Execute an action."""
    outcome = await session.step(action)
    step = Step(
        thought=thought,
        action=action,
        observation=outcome.observation,
        score=outcome.score,
        deliberated=is_deliberation(thought),
    )
    return Taken(step, outcome.done, outcome.valid)
