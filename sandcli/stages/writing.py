"""What the base model is shown and asked in `critique`, `synthesize` and `collect`, and what becomes of its answers."""

import re
from collections.abc import Sequence

from sandcli.react import has_action_line, normalise
from sandcli.records import Step

_SENTENCE = re.compile(r"[^.!?]*[.!?]+(?=\s|$)[\"')]*")
_HINDSIGHT = re.compile(r"\b(expert|rollouts?|critiques?|reward|feedback|hindsight)\b", re.IGNORECASE)
_RUN_LENGTH, _RUN_LIMIT = 6, 3
"""A text in which the same six words come three times goes round in circles."""


def told(steps: Sequence[Step], most: int) -> str:
    """Steps as text, one action and its observation a line; the middle of a long list is marked as left out."""
    if not steps:
        return "(nothing yet)"
    lines = [
        f"{n}. {step.action or '(no valid action)'} -> {_flat(step.observation)}" for n, step in enumerate(steps, 1)
    ]
    if len(lines) > most:
        half = most // 2
        lines[half : len(lines) - (most - half)] = [f"[{len(lines) - most} steps left out here]"]
    return "\n".join(lines)


def sentences(text: str, most: int) -> str:
    """The first whole sentences on one line; all of it where none is whole."""
    flat = _flat(text)
    found = [match.strip() for match in _SENTENCE.findall(flat)]
    return " ".join(found[:most]) if found else flat


def fault(text: str, finish: str, expert: str, candidates: Sequence[str]) -> str | None:
    """Why a deliberation may not become data; None for a good one. `text` is what the model wrote itself."""
    if finish == "length":
        return "cut by the token limit"
    if has_action_line(text) or "action:" in text.lower():
        return "contains an action line"
    if repeats(text):
        return "repeats itself"
    if _HINDSIGHT.search(text):
        return "speaks of what the agent cannot know"
    last = last_mentioned(text, candidates)
    if normalise(expert) not in normalise(text):
        return "never mentions the expert's action"
    return None if last == normalise(expert) else "does not end in the expert's action"


def last_mentioned(text: str, candidates: Sequence[str]) -> str | None:
    """Which candidate a text names last; of two that end together, the longer."""
    flat = normalise(text)
    found = [(flat.rfind(c) + len(c), len(c), c) for c in map(normalise, candidates) if c in flat]
    return max(found)[2] if found else None


def repeats(text: str) -> bool:
    """Whether a sentence, or six words in a row, come again and again."""
    found = [normalise(match) for match in _SENTENCE.findall(text) if len(match.split()) > 2]
    if len(found) != len(set(found)):
        return True
    words = normalise(text).split()
    runs = [tuple(words[i : i + _RUN_LENGTH]) for i in range(len(words) - _RUN_LENGTH + 1)]
    return any(runs.count(run) >= _RUN_LIMIT for run in set(runs))


def _flat(text: str) -> str:
    return " ".join(text.split())
