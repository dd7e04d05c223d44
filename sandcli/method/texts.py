"""Texts for and from the base model: steps as a list, whole sentences, repetition. Pure."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from sandcli.agent.turns import normalise
from sandcli.records import Step

_SENTENCE_END = re.compile(r"(?<![.!?])[.!?]++[\"')]*+(?=\s|$)")

_RUN_LENGTH, _RUN_LIMIT = 6, 3
"""A text repeats itself if the same six words occur three times."""

_CHARACTERS = 4
"""How many characters count as one token. This is an estimate, so that a text is the same for every model."""


def format_steps(steps: Sequence[Step], budget: int) -> str:
    """Steps as text, one per line: the action and the observation that followed.

    The newest step is always complete. Older ones fill `budget` tokens, newest first. An observation that does not fit
    is left out and marked. If an action does not fit either, it and all steps before it are left out.
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
    found = [sentence.strip() for sentence in _sentences(flat)]
    return " ".join(found[:most]) if found else flat


def repeats(text: str) -> bool:
    """Whether a sentence, or six words in a row, occur again and again."""
    found = [normalise(sentence) for sentence in _sentences(text) if len(sentence.split()) > 2]
    if len(found) != len(set(found)):
        return True
    words = normalise(text).split()
    runs = [tuple(words[i : i + _RUN_LENGTH]) for i in range(len(words) - _RUN_LENGTH + 1)]
    return any(count >= _RUN_LIMIT for count in Counter(runs).values())


def _sentences(text: str) -> list[str]:
    """The complete sentences of a text, with the white space between them."""
    ends = [0, *(match.end() for match in _SENTENCE_END.finditer(text))]
    return [text[start:end] for start, end in pairwise(ends)]


def on_one_line(text: str) -> str:
    """The text with single spaces for all white space."""
    return " ".join(text.split())


def paragraphs(text: str) -> str:
    """The text with one line per paragraph or list item, single spaces and no empty lines."""
    lines = map(on_one_line, text.splitlines())
    return "\n".join(line for line in lines if line)
