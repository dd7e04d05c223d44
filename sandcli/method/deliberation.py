"""One thought that weighs all candidates and ends in the expert's action. (Paper, Eq. 6.) Pure.

Holds the prompt, and the checks that a thought must pass before it becomes training data.
"""

import random
import re
from collections.abc import Sequence
from typing import NamedTuple

from sandcli.agent.form import is_deliberation, listed_options, opening
from sandcli.agent.turns import normalise
from sandcli.messages import Message
from sandcli.method.inconsistency import ExpertStep
from sandcli.method.texts import format_steps, on_one_line, repeats
from sandcli.prompts import fill

CONCLUSION = "So I will"
"""How the last sentence of a deliberation begins; prompts/deliberate.md asks for it."""

_HINDSIGHT = re.compile(r"\b(expert|rollouts?|critiques?|reward|feedback|hindsight)\b", re.IGNORECASE)
_CONCLUSION = re.compile(rf"\b{CONCLUSION}\b")
_SENTENCE_END = re.compile("[.!?]")
_LINKS = "because|since|as|so|to|in order|which|after|before|while|first|next|now|then|again|instead"
_DECISION_ENDS = rf"(?=$|[^\w\s]|\s(?:{_LINKS})\b)"
"""What may follow the action in a conclusion: `pick up seed in jar` does not decide for `pick up seed`."""


class Option(NamedTuple):
    """An action that is weighed; `critique` is empty if there is none."""

    action: str
    critique: str = ""


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


def deliberation_prompt(flagged: FlaggedStep, prompt: str, shown_steps: int, others: int, seed: int) -> Question:
    """Ask for a deliberation: z~_t = pi_base({(a, c)}, a_t).

    The candidates come in an order drawn from the seed: if the expert's were always first, the agent could learn to
    take the first. With the prompt `propose` the base model thinks of up to `others` alternatives; there is no order.
    """
    at = flagged.at
    order = [] if prompt == "propose" else random.Random(seed).sample(flagged.options, len(flagged.options))
    asked = fill(
        prompt,
        instruction=at.trajectory.instruction,
        history=format_steps(at.prefix, shown_steps),
        candidates="\n".join(f"({n}) {_line(option)}" for n, option in enumerate(order, 1)),
        others=str(others),
        action=flagged.action,
    )
    first = f' With "{order[0].action}" I' if order else ""
    return Question([*asked, Message("assistant", opening([option.action for option in order]) + first)], order)


def _line(option: Option) -> str:
    return f"{option.action}: {option.critique}" if option.critique else option.action


def concluded(text: str) -> str | None:
    """A deliberation up to the end of its first conclusion; None if there is none.

    What a model writes after it has decided is not part of the deliberation.
    """
    flat = on_one_line(text)
    begin = _CONCLUSION.search(flat)
    end = _SENTENCE_END.search(flat, begin.end()) if begin else None
    return f" {flat[: end.end()]}" if end else None


def rejection(flagged: FlaggedStep, thought: str, written: str, finish: str) -> str | None:
    """Why a deliberation is no data; None if it is good.

    `thought` is what the prompt began, and what the base model has `written` as far as its conclusion.
    """
    known = [option.action for option in flagged.options]
    options = known if len(known) > 1 else listed_options(thought)
    why = rejection_reason(written, finish, flagged.action, options)
    return why or (None if is_deliberation(thought) else "lists no alternatives")


def rejection_reason(text: str, finish: str, expert: str, candidates: Sequence[str]) -> str | None:
    """Why the text that follows the opening may not become data; None if it may."""
    if "action:" in text.lower():
        return "contains an action line"
    if not _mentions(text, expert):
        return "never mentions the expert's action"
    thought = concluded(text)
    if thought is None:
        return "cut by the token limit" if finish == "length" else "comes to no conclusion"
    if repeats(_anonymous(thought, candidates)):
        return "repeats itself"
    if _HINDSIGHT.search(thought):
        return "speaks of what the agent cannot know"
    decided = _decided(thought.rpartition(CONCLUSION)[2], candidates)
    return None if decided == normalise(expert) else "does not end in the expert's action"


def _anonymous(text: str, candidates: Sequence[str]) -> str:
    """The text with one word for each action: naming a long action several times is not repetition."""
    for action in sorted(candidates, key=len, reverse=True):
        text = re.sub(re.escape(action), "ACTION", text, flags=re.IGNORECASE)
    return text


def _decided(conclusion: str, candidates: Sequence[str]) -> str | None:
    """The candidate that a conclusion begins with; the longest if there are several."""
    tail = normalise(conclusion)
    named = (c for c in map(normalise, candidates) if re.match(rf"{re.escape(c)}{_DECISION_ENDS}", tail))
    return max(named, key=len, default=None)


def _mentions(text: str, action: str) -> bool:
    """Whether a text names an action, in whole words."""
    return re.search(rf"(?<!\w){re.escape(normalise(action))}(?!\w)", normalise(text)) is not None
