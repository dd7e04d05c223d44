"""Decides which texts of the base model become deliberation thoughts. The checks are ours: the paper names none. Pure.

A text follows the opening that lists the options. Its last sentence is its conclusion. Everything before that is its
body, which must weigh every candidate.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from sandcli.agent.turns import normalise
from sandcli.method.texts import paragraphs, repeats

CONCLUSION = "So I will"
"""How a deliberation is asked to conclude. `Therefore, I will` and the like are understood as well."""

_CONCLUSION = re.compile(
    r"\b(?:so|therefore|thus|hence|consequently),? I(?:'ll| will| choose to| decide to)(?: now| therefore)?\b",
    re.IGNORECASE,
)
_END = re.compile(r"(?<![^\w\s])[^\w\s.!?]*+[.!?](?=[^\w\s]*+(?:\s|$))|$", re.MULTILINE)
"""The end of a sentence: its punctuation, or the end of the line."""

_AFTER_ACTION = 100
"""Characters after `So I will` and the longest action that are read to find the decision."""

_LINKS = "because|since|as|so|to|in order|which|after|before|while|first|next|now|then|again|instead"
_DECISION_ENDS = rf"(?=$|[^\w\s]|\s(?:{_LINKS})\b)"
"""What may follow the action in a conclusion: `pick up seed in jar` does not decide for `pick up seed`."""

_EMPHASIS = "*_\"'`: "

_WORDS = 2
"""The minimum number of words about a candidate, on average, not counting the candidates' names."""

_SOURCES = re.compile(
    r"\b(?:experts?|demonstrations?|rollouts?|simulat(?:ed|ions?)|critiques?|rewards?|scor(?:es?|ed)|feedback|hindsight"
    r"|tried|attempted|(?:was|were|am|been) (?:told|instructed)"
    r"|(?:told|asked) to (?:end|conclude|choose|pick|decide))\b",
    re.IGNORECASE,
)
_PAST = r"completed|solved|finished|failed|succeeded|worked|advanced|hindered|ruined|ended|did not affect|didn't affect"
_OUTCOMES = re.compile(
    rf"\b(?:{_PAST}|had no effect on) (?:the|this|that|my) (?:task|goal|episode|experiment)\b"
    r"|\b(?:task|goal|episode) (?:was|has been|had been) (?:completed|solved|finished|failed|advanced|hindered)\b"
    rf"|\b(?:it|this|that|which|they|others?|ones?|option|candidate|I|\d+\)|ACTION[\"'`]?) (?:had )?"
    r"(?:failed|succeeded|worked|turned out|resulted|led to|earned|gained|made no progress)\b"
    r"|\bbecause (?:it|this|that) (?:had )?(?:let|allowed|enabled|helped) (?:me|us|you)\b"
)
"""Outcomes of an action, in the past tense."""

_EXPECTED = re.compile(
    r"(?:\bWith [\"'`]*ACTION[\"'`]*,? )?\bI would (advance|hinder|not affect) the task, because(?: it would)?\b"
)
"""How every sentence of a guided deliberation begins; only the verdict tells two of them apart."""


_UNLISTED = re.compile(r"\boption \(?\d", re.IGNORECASE)
"""An option by its number, once the numbers of the candidates are replaced."""


class Conclusion(NamedTuple):
    """A text split at its conclusion: the body, and the sentence that decides, up to its full stop."""

    body: str
    sentence: str
    decision: str | None
    """The candidate that the sentence decides for, normalised; None if it names no candidate."""


def conclusion(text: str, candidates: Sequence[str]) -> Conclusion | None:
    """The first conclusion that decides for a candidate, else the first one; None if there is none.

    Text after the decision is not part of the deliberation.
    """
    first = end = None
    longest = max(map(len, candidates), default=0) + _AFTER_ACTION
    for match in _CONCLUSION.finditer(text):
        if end is None or end.start() < match.end():
            end = _END.search(text, match.end())
        assert end is not None
        decision = _decided(text[match.end() : min(end.start(), match.end() + longest)], candidates)
        if decision is not None or first is None:
            found = Conclusion(text[: match.start()], text[match.start() : end.end()], decision)
            first = first or found
        if decision is not None:
            return found
    return first


def up_to_conclusion(text: str, candidates: Sequence[str]) -> str:
    """A text up to the end of its conclusion, one line per paragraph; empty if there is no conclusion."""
    found = conclusion(paragraphs(text), candidates)
    if found is None:
        return ""
    return f"{found.body}{found.sentence}{'' if _ends(found.sentence) else '.'}"


def rejection_reason(text: str, finish: str, expert: str, candidates: Sequence[str]) -> str | None:
    """Why the text after the opening may not become data; None if it may.

    `candidates` are in the order in which the opening numbers them, the expert's action among them. `finish` is
    `length` if the token limit ended the text.
    """
    text = paragraphs(text)
    if "action:" in text.lower():
        return "contains an action line"
    found = conclusion(text, candidates)
    if found is None or (finish == "length" and (found.body + found.sentence) == text and not _ends(text)):
        return "cut by the token limit" if finish == "length" else "comes to no conclusion"
    if found.decision != normalise(expert):
        return "does not end in the expert's action"
    return _fault(found, candidates)


def _fault(found: Conclusion, candidates: Sequence[str]) -> str | None:
    """The fault of a text that decides for the right action; None if there is none."""
    body, mentioned = _anonymous(found.body, candidates)
    whole, _ = _anonymous(f"{found.body}{found.sentence}", candidates)
    if _SOURCES.search(whole) or _OUTCOMES.search(whole):
        return "mentions what the agent cannot know"
    if len(mentioned) < len(candidates):
        return "leaves out a candidate"
    if _UNLISTED.search(whole):
        return "weighs an option that is not listed"
    if _says_it_hinders(found):
        return "speaks against the action it chooses"
    if len(re.findall(r"[^\W\d]+", body.replace("ACTION", ""))) < _WORDS * len(candidates):
        return "does not weigh the candidates"
    return "repeats itself" if repeats(_EXPECTED.sub(r"\1", whole)) else None


def _says_it_hinders(found: Conclusion) -> bool:
    """Whether the body says of the action that is chosen that it would hinder the task, as the prompts put it."""
    name = r"\s+".join(map(re.escape, (found.decision or "").split()))
    return (
        re.search(rf"\bwith [\"'`*]*{name}[\"'`*]*,? I would hinder the task\b", found.body, re.IGNORECASE) is not None
    )


def _ends(text: str) -> bool:
    return text.endswith((".", "!", "?"))


def _anonymous(text: str, candidates: Sequence[str]) -> tuple[str, set[int]]:
    """The text with `ACTION` for each candidate, and the numbers of the candidates it names, by action or as `(2)`.

    Naming a long action several times is not repetition, and an action may contain any word, as `read scores` does.
    """
    named: set[int] = set()
    by_length = sorted(enumerate(candidates, 1), key=lambda candidate: len(candidate[1]), reverse=True)
    for number, action in by_length:
        words = r"\s+".join(map(re.escape, normalise(action).split()))
        name = rf"(?<!\w){words}(?!\w)|\({number}\)|\boption {number}\b|^{number}[.)]"
        text, count = re.subn(name, "ACTION", text, flags=re.IGNORECASE | re.MULTILINE)
        if count:
            named.add(number)
    return text, named


def _decided(tail: str, candidates: Sequence[str]) -> str | None:
    """The candidate that the text after `So I will` starts with; the longest if there are several."""
    decision = normalise(tail.lstrip(_EMPHASIS))
    named = (c for c in map(normalise, candidates) if re.match(rf"{re.escape(c)}{_DECISION_ENDS}", decision))
    return max(named, key=len, default=None)
