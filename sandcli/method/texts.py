"""What the base model is shown and asked in `critique`, `synthesize` and `collect`, and what becomes of its answers."""

import re
from collections.abc import Sequence

from sandcli.agent.turns import normalise
from sandcli.records import Step

_SENTENCE = re.compile(r".*?[.!?]+[\"')]*(?=\s|$)", re.DOTALL)
_HINDSIGHT = re.compile(r"\b(expert|rollouts?|critiques?|reward|feedback|hindsight)\b", re.IGNORECASE)
CONCLUSION = "So I will"
"""How the last sentence of a deliberation begins; prompts/deliberate.md asks for it."""

_VERDICT = re.compile(r"\b(advanced|hindered|did not affect)(?= the task)")
_FORESEEN = {"advanced": "advance", "hindered": "hinder", "did not affect": "not affect"}

_CONCLUDED = re.compile(rf"^.*?\b{CONCLUSION}\b[^.!?]*[.!?]", re.DOTALL)
_LINKS = "because|since|as|so|to|in order|which|after|before|while|first|next|now|then|again|instead"
_DECISION_ENDS = rf"(?=$|[^\w\s]|\s(?:{_LINKS})\b)"
"""What may follow the action in a conclusion; `pick up seed in jar` does not decide for `pick up seed`."""

_RUN_LENGTH, _RUN_LIMIT = 6, 3
"""A text in which the same six words come three times goes round in circles."""

_LONGEST = 160
"""Characters of one observation that are shown; a room's full listing says little about what an action led to."""


def told(steps: Sequence[Step], most: int) -> str:
    """Steps as text, each action with its observation; what is left out of long ones is marked."""
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
    flat = _flat(observation)
    return flat if len(flat) <= _LONGEST else f"{flat[:_LONGEST]} [...]"


def sentences(text: str, most: int) -> str:
    """The first whole sentences on one line; all of it where none is whole."""
    flat = _flat(text)
    found = [match.strip() for match in _SENTENCE.findall(flat)]
    return " ".join(found[:most]) if found else flat


def concluded(text: str) -> str | None:
    """A deliberation up to the end of its first conclusion; None where there is none.

    What a model goes on to say after it has decided is not part of the deliberation.
    """
    match = _CONCLUDED.search(_flat(text))
    return f" {match[0].strip()}" if match else None


def fault(text: str, finish: str, expert: str, candidates: Sequence[str]) -> str | None:
    """Why a deliberation may not become data; None for a good one. `text` is all that follows the opening."""
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


def judgement(critique: str) -> str:
    """A critique's verdict as a thought before the action may begin; nothing where it gives none."""
    given = _VERDICT.search(critique)
    return f" would {_FORESEEN[given[0]]} the task, because" if given else ""


def _anonymous(text: str, candidates: Sequence[str]) -> str:
    """The text with a word for each action: to name a long one several times is not to go round in circles."""
    for action in sorted(candidates, key=len, reverse=True):
        text = re.sub(re.escape(action), "ACTION", text, flags=re.IGNORECASE)
    return text


def _decided(conclusion: str, candidates: Sequence[str]) -> str | None:
    """The candidate that a conclusion begins with, the longest of several."""
    tail = normalise(conclusion)
    named = (c for c in map(normalise, candidates) if re.match(rf"{re.escape(c)}{_DECISION_ENDS}", tail))
    return max(named, key=len, default=None)


def _mentions(text: str, action: str) -> bool:
    """Whether a text names an action, in whole words."""
    return re.search(rf"(?<!\w){re.escape(normalise(action))}(?!\w)", normalise(text)) is not None


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
