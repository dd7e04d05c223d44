"""Texts for and from the base model: steps as one paragraph, whole sentences, repetition. Pure."""

import re
from collections.abc import Sequence

from sandcli.agent.turns import normalise
from sandcli.records import Step

_SENTENCE = re.compile(r".*?[.!?]+[\"')]*(?=\s|$)", re.DOTALL)

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
