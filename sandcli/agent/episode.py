"""One agent in one environment, from wherever the session stands to the end of the episode."""

from collections.abc import Callable
from typing import NamedTuple

from sandcli.agent.turns import INVALID_TURN, is_deliberation, normalise, parse, turn_messages
from sandcli.engines.base import Engine, Sampling
from sandcli.envs.pool import Session
from sandcli.errors import ContextOverflow
from sandcli.messages import Message
from sandcli.records import End, Step


class Limits(NamedTuple):
    """When an episode ends: after `steps` more steps, or after `invalid` invalid actions in a row."""

    steps: int
    invalid: int


class Played(NamedTuple):
    """What the agent did; `tokens` counts what was generated."""

    steps: list[Step]
    end: End
    tokens: int


async def play(
    engine: Engine,
    session: Session,
    history: list[Message],
    sampling: Callable[[int], Sampling],
    limits: Limits,
) -> Played:
    """Let the agent act until the episode ends.

    `history` ends where the agent's next turn begins; `sampling(t)` says how turn t is drawn. A turn without an
    action costs a step and does not touch the world. A full context ends the episode and is counted as such.
    """
    messages = list(history)
    steps: list[Step] = []
    tokens = invalid = 0
    end: End = "max_steps"
    while len(steps) < limits.steps:
        try:
            (completion,) = await engine.generate(messages, sampling(len(steps)))
        except ContextOverflow:
            end = "context"
            break
        tokens += completion.tokens
        step, done, valid = await take(session, completion.text)
        steps.append(step)
        messages += turn_messages(step)
        invalid = 0 if valid else invalid + 1
        if done or invalid >= limits.invalid:
            end = "done" if done else "invalid_actions"
            break
    return Played(steps, end, tokens)


async def take(session: Session, text: str) -> tuple[Step, bool, bool]:
    """Execute what the agent said; whether the episode is over, and whether the action was a valid one."""
    turn = parse(text)
    if turn is None:
        said = Step(thought=text.strip(), action="", observation=INVALID_TURN, score=session.score)
        return said, False, False
    action = normalise(turn.action)
    outcome = await session.step(action)
    step = Step(
        thought=turn.thought,
        action=action,
        observation=outcome.observation,
        score=outcome.score,
        deliberated=is_deliberation(turn.thought),
    )
    return step, outcome.done, outcome.valid
