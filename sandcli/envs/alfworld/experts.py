"""ALFWorld's two experts, as lists of commands.

The handcoded expert searches as a player must: it knows the observations, and where objects of a kind usually are.
The planner (`Game.plan`) knows the whole hidden state and takes the shortest path, so it never searches.
"""

import random
from collections.abc import Mapping
from typing import Any, NamedTuple

from sandcli.envs.alfworld.files import Goal
from sandcli.envs.alfworld.game import Game, Position
from sandcli.envs.alfworld.grammars import to_move, to_put

_MAX_STEPS = 200
"""The limit of ALFWorld's own expert."""


class _Fact(NamedTuple):
    name: str
    names: tuple[str, ...]


def handcoded(game: Game, goal: Goal, seed: int) -> list[str]:
    """The actions of ALFWorld's handcoded expert; empty if it gives up. It acts at random when stuck, hence `seed`."""
    from alfworld.agents.expert import HandCodedAgentFailed, HandCodedAgentTimeout, HandCodedTWAgent

    agent = HandCodedTWAgent(max_steps=_MAX_STEPS)
    lowered = {name: str(value).lower() if value else value for name, value in goal.parameters.items()}
    agent.task_params = {"task_type": goal.type, **lowered}
    agent.policy = agent.get_task_policy(agent.task_params)(agent.task_params, max_steps=_MAX_STEPS)
    agent.observe(game.intro())
    state = random.getstate()
    random.seed(seed)
    try:
        return _walk(game, agent)
    except (HandCodedAgentFailed, HandCodedAgentTimeout):
        return []
    finally:
        random.setstate(state)


def _walk(game: Game, agent: Any) -> list[str]:
    """Play until the game is won.

    The expert speaks the newer grammar, but it tracks what it holds by the older `put`. So it is given its last command
    in the older grammar; otherwise it would carry the first of two objects forever.
    """
    position, feedback, last, path = game.start, game.intro(), "", list[str]()
    while not game.won(position):
        commands = {to_move(c) if game.verb == "put" else c: c for c in game.commands(position)}
        chosen = agent.act(_state(game, position, feedback, sorted(commands)), 0, False, last) if last else "look"
        command = commands.get(chosen, "look")
        last = to_put(command)
        path.append(command)
        position, feedback = game.apply(position, game.commands(position)[command])
    return path


def _state(game: Game, position: Position, feedback: str, commands: list[str]) -> Mapping[str, Any]:
    """The game state in the form that ALFWorld's expert reads."""
    facts = [_Fact(name, tuple(names)) for name, *names in game.named_facts(position)]
    return {"feedback": feedback, "facts": facts, "admissible_commands": commands}
