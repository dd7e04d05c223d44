"""Texts for and from the base model: steps as a list, whole sentences, repetition. Pure."""

import re
from collections.abc import Sequence

from sandcli.agent.turns import normalise
from sandcli.records import Step

_SENTENCE = re.compile(r".*?[.!?]+[\"')]*(?=\s|$)", re.DOTALL)

_RUN_LENGTH, _RUN_LIMIT = 6, 3
"""A text repeats itself if the same six words occur three times."""

_CHARACTERS = 4
"""Characters that count as one token. An estimate, so that a text is the same whichever model reads it."""


def format_steps(steps: Sequence[Step], budget: int) -> str:
    """Steps as text, one a line: the action and the observation that followed.

    The newest step is always whole. Older ones fill `budget` tokens, from the newest backwards. An observation that
    does not fit is left out, marked; once an action does not fit either, so are all steps before it.
    """
    if not steps:
        return "(nothing)"
    newest, *older = reversed(list(enumerate(steps, 1)))
    shown, left = [_line(*newest)], budget * _CHARACTERS
    for number, step in older:
        whole = _line(number, step)
        line = whole if len(whole) <= left else f"{number}. {_action(step)} -> [observation left out]"
        if len(line) > left:
            shown.append(f"[{number} earlier steps left out]")
            break
        shown.append(line)
        left -= len(line)
    return "\n".join(reversed(shown))


def _line(number: int, step: Step) -> str:
    return f"{number}. {_action(step)} -> {on_one_line(step.observation)}"


def _action(step: Step) -> str:
    return step.action or "(no valid action)"


def first_sentences(text: str, most: int) -> str:
    """The first whole sentences on one line; the whole text if no sentence is complete."""
    flat = on_one_line(text)
    found = [match.strip() for match in _SENTENCE.findall(flat)]
    return " ".join(found[:most]) if found else flat


def repeats(text: str) -> bool:
    """Whether a sentence, or six words in a row, occur again and again."""
    found = [normalise(match) for match in _SENTENCE.findall(text) if len(match.split()) > 2]
    if len(found) != len(set(found)):
        return True
    words = normalise(text).split()
    runs = [tuple(words[i : i + _RUN_LENGTH]) for i in range(len(words) - _RUN_LENGTH + 1)]
    return any(runs.count(run) >= _RUN_LIMIT for run in set(runs))


def on_one_line(text: str) -> str:
    """The text with single spaces for all white space."""
    return " ".join(text.split())


def paragraphs(text: str) -> str:
    """The text with one line a paragraph or list item: single spaces, no empty lines."""
    lines = map(on_one_line, text.splitlines())
    return "\n".join(line for line in lines if line)
