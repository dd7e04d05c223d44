"""One agent in one environment, from the session's present state to the end of the episode."""

from collections.abc import Callable
from typing import NamedTuple

from sandcli.agent.conversation import INVALID_TURN, turn_messages
from sandcli.agent.form import is_deliberation
from sandcli.agent.turns import normalise, parse
from sandcli.engines.base import Engine, Sampling
from sandcli.envs.pool import Session
from sandcli.errors import ContextOverflow
from sandcli.messages import Message
from sandcli.records import End, Step


class EpisodeLimits(NamedTuple):
    """When an episode ends: after `steps` more steps, or after `invalid` invalid actions in a row."""

    steps: int
    invalid: int


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


async def play(
    engine: Engine,
    session: Session,
    history: list[Message],
    sampling: Callable[[int], Sampling],
    limits: EpisodeLimits,
    opening: str = "",
) -> Played:
    """Let the agent act until the episode ends.

    `history` ends where the agent's next turn begins; `sampling(t)` gives the sampling of turn t, and every turn begins
    with `opening`. A turn without an action costs a step and does not touch the world. A full context ends the episode
    and is recorded as such.
    """
    messages = list(history)
    begun = [Message("assistant", opening)] if opening else []
    steps: list[Step] = []
    tokens = invalid = 0
    end: End = "max_steps"
    while len(steps) < limits.steps:
        try:
            (completion,) = await engine.generate([*messages, *begun], sampling(len(steps)))
        except ContextOverflow:
            end = "context"
            break
        tokens += completion.tokens
        step, done, valid = await take(session, f"{opening}{completion.text}")
        steps.append(step)
        messages += turn_messages(step)
        invalid = 0 if valid else invalid + 1
        if done or invalid >= limits.invalid:
            end = "done" if done else "invalid_actions"
            break
    return Played(steps, end, tokens)


async def take(session: Session, text: str) -> Taken:
    """Execute what the agent said."""
    turn = parse(text)
    if turn is None:
        said = Step(thought=text.strip(), action="", observation=INVALID_TURN, score=session.score)
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
