"""The form of a deliberation thought. It is ours: the paper does not fix one.

A deliberation starts by listing its options: `My options: (1) look around; (2) go to kitchen.`
"""

import re
from collections.abc import Sequence

from sandcli.agent.turns import normalise

_OPENING = "My options:"
_OPTION = re.compile(r"\((\d+)\)\s+\S")


def opening(actions: Sequence[str]) -> str:
    """How a deliberation of these actions starts; without actions it ends just before the first one."""
    if not actions:
        return f"{_OPENING} (1)"
    options = "; ".join(f"({number}) {action}" for number, action in enumerate(actions, 1))
    return f"{_OPENING} {options}."


TURN_OPENINGS = {"free": "", "never": "Action:", "always": f"Thought: {opening(())}"}
"""What every turn of an agent starts with if it deliberates as it chooses, never, or always."""


def listed_options(thought: str) -> list[str]:
    """The actions that a deliberation lists at its start."""
    listed = " ".join(thought.lstrip().removeprefix(_OPENING).partition(".")[0].split())
    return [normalise(part) for part in re.split(r";? ?\(\d+\) ", f"{listed} ") if normalise(part)]


def is_deliberation(thought: str) -> bool:
    """Whether a thought weighs alternatives: it starts with `My options:` and lists at least (1) and (2).

    Every reported deliberation rate uses this definition. It looks at the form that a trained agent has learned to
    write, not at the quality of the reasoning.
    """
    if not thought.lstrip().startswith(_OPENING):
        return False
    return {"1", "2"} <= set(_OPTION.findall(thought))
