"""One thought that weighs all candidates and ends in the expert's action. (Paper, Eq. 6.) Pure."""

import random
from typing import NamedTuple

from sandcli.agent.form import opening
from sandcli.messages import Message
from sandcli.method.inconsistency import ExpertStep
from sandcli.method.texts import format_steps
from sandcli.prompts import Prompts


class Option(NamedTuple):
    """An action that is weighed, and what is known of it, such as its critique; empty if nothing is."""

    action: str
    note: str = ""


class FlaggedStep(NamedTuple):
    """A step to deliberate.

    `options` are the candidates, the expert's first. The thought must end in option number `chosen`: the expert's,
    unless the expert was switched. If the base model is to propose the options itself, only the expert's is there.
    """

    at: ExpertStep
    options: list[Option]
    chosen: int = 0

    @property
    def action(self) -> str:
        """The action that the thought must end in."""
        return self.options[self.chosen].action


class Question(NamedTuple):
    """What the base model is asked. It ends in the opening to be continued, which lists the options in `order`."""

    messages: list[Message]
    order: list[Option]


class Asking(NamedTuple):
    """How to ask: a set of prompts, the question in it, and the budget `history_tokens` for older observations.

    With the question `propose`, the base model thinks of up to `others` alternatives itself.
    """

    prompts: Prompts
    name: str
    history_tokens: int
    others: int


def deliberation_prompt(flagged: FlaggedStep, asking: Asking, seed: int) -> Question:
    """Ask for a deliberation: z~_t = pi_base({(a, c)}, a_t).

    The candidates come in an order drawn from the seed: if the expert's were always first, the agent could learn to
    take the first. With `propose` there is nothing to order.
    """
    at = flagged.at
    proposes = asking.name == "propose"
    order = [] if proposes else random.Random(seed).sample(flagged.options, len(flagged.options))
    messages = asking.prompts.fill(
        asking.name,
        instruction=at.trajectory.instruction,
        history=format_steps(at.prefix, asking.history_tokens),
        candidates="\n".join(f"({n}) {_line(option)}" for n, option in enumerate(order, 1)),
        others=str(asking.others),
        action=flagged.action,
        opening=opening([option.action for option in order]),
        first=order[0].action if order else "",
    )
    return Question(messages, order)


def _line(option: Option) -> str:
    return f"{option.action}: {option.note}" if option.note else option.action
