"""ALFWorld's two experts, as lists of commands.

The handcoded one looks for things as a player must: it knows what the texts say and where such things usually are.
The planner knows the whole hidden state and goes the shortest way, so it never searches.
"""

import random
from collections.abc import Mapping
from typing import Any, NamedTuple

from sandcli.envs.alfworld.files import Goal
from sandcli.envs.alfworld.game import Game
from sandcli.envs.alfworld.grammars import to_move, to_put

_MAX_STEPS = 200
"""As ALFWorld's own expert."""


class _Fact(NamedTuple):
    name: str
    names: tuple[str, ...]


def handcoded(game: Game, goal: Goal, seed: int) -> list[str]:
    """What ALFWorld's handcoded expert does until it wins or gives up. It draws at random where it is stuck: `seed`."""
    from alfworld.agents.expert import HandCodedAgentFailed, HandCodedAgentTimeout, HandCodedTWAgent

    agent = HandCodedTWAgent(max_steps=_MAX_STEPS)
    wanted = {name: str(value).lower() if value else value for name, value in goal.parameters.items()}
    agent.task_params = {"task_type": goal.type, **wanted}
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
    """The expert wishes in the newer grammar, but its memory of what it holds only knows `put`.

    So it is told what it did in the older words; without that it carries the first of two objects for ever.
    """
    position, said, done, path = game.start, game.intro(), "", list[str]()
    while not game.won(position):
        commands = {to_move(c) if game.verb == "put" else c: c for c in game.commands(position)}
        wish = agent.act(_seen(game, position, said, sorted(commands)), 0, False, done) if done else "look"
        command = commands.get(wish, "look")
        done = to_put(command)
        path.append(command)
        position, said = game.apply(position, game.commands(position)[command])
    return path


def _seen(game: Game, position: Any, said: str, commands: list[str]) -> Mapping[str, Any]:
    facts = [_Fact(name, tuple(names)) for name, *names in game.told(position)]
    return {"feedback": said, "facts": facts, "admissible_commands": commands}
