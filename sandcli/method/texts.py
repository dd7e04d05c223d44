"""Texts for and from the base model: steps as one paragraph, whole sentences, repetition. Pure."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from sandcli.agent.turns import normalise
from sandcli.records import Step

_SENTENCE_END = re.compile(r"(?<![.!?])[.!?]++[\"')]*+(?=\s|$)")

_RUN_LENGTH, _RUN_LIMIT = 6, 3
"""A text repeats itself if the same six words occur three times."""

_LONGEST = 160
"""Characters of one observation that are shown."""


def format_steps(steps: Sequence[Step], most: int) -> str:
    """Steps as text, each action with its observation. Of more than `most` steps the middle is left out, marked."""
    if not steps:
        return "(nothing)"
    lines = [
        f"{n}. {step.action or '(no valid action)'} -> {_short(step.observation)}" for n, step in enumerate(steps, 1)
    ]
    if len(lines) > most:
        half = most // 2
        lines[half : len(lines) - (most - half)] = [f"[{len(lines) - most} steps left out here]"]
    return " ".join(lines)


def _short(observation: str) -> str:
    flat = on_one_line(observation)
    return flat if len(flat) <= _LONGEST else f"{flat[:_LONGEST]} [...]"


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
