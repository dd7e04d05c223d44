"""What did an action lead to? The critique of one candidate. (Paper, Eq. 5.) Pure."""

import re
from typing import NamedTuple

from sandcli.messages import Message
from sandcli.method.inconsistency import ExpertStep
from sandcli.method.texts import first_sentences, format_steps
from sandcli.prompts import fill
from sandcli.records import Rollout
from sandcli.settings import CritiqueSettings

_SENTENCES = 3
_VERDICT = re.compile(r"\b(advanced|hindered|did not affect)(?= the task)")


class Case(NamedTuple):
    """A rollout and the expert step that it branched from."""

    at: ExpertStep
    rollout: Rollout


def critique_prompt(case: Case, settings: CritiqueSettings) -> list[Message]:
    """Ask the base model about one candidate: c = pi_base(a, e^, r). It ends in words for the model to continue."""
    at, rollout = case
    shown, verdict = settings.shown_steps, f" {_verdict(case)}, because" if settings.verdict == "reward" else ""
    asked = fill(
        "critique",
        instruction=at.trajectory.instruction,
        history=format_steps(at.prefix, shown),
        action=rollout.action,
        observation=format_steps(rollout.steps[:1], shown),
        rollout=format_steps(rollout.steps[1:], shown),
        ending=_ending(case),
    )
    return [*asked, Message("assistant", f'With "{rollout.action}" I{verdict}')]


def critique_text(prompt: list[Message], written: str) -> str:
    """What the prompt began and the model finished, at most three sentences; empty if the model wrote nothing."""
    return first_sentences(f"{prompt[-1].content}{written}", _SENTENCES) if written else ""


def verdict_of(critique: str) -> str:
    """`advanced`, `hindered` or `did not affect`: what a critique says about its action; empty if it does not say."""
    given = _VERDICT.search(critique)
    return given[0] if given else ""


def _verdict(case: Case) -> str:
    """What the rewards say: progress, and as much as the expert's; an end before that; or neither."""
    if _gained(case) and case.rollout.reward >= case.at.trajectory.reward:
        return "advanced the task"
    return "hindered the task" if case.rollout.end == "done" else "did not affect the task"


def _ending(case: Case) -> str:
    rollout = case.rollout
    if rollout.success:
        return "the task was completed."
    if rollout.end == "done":
        return f"the task failed (score {rollout.reward:.2f})."
    gained = "some progress was made" if _gained(case) else "no progress was made"
    return f"the task was not completed, and {gained} (score {rollout.reward:.2f})."


def _gained(case: Case) -> bool:
    """Whether the rollout reached a better score than there was before the candidate."""
    return case.rollout.reward > max((step.score for step in case.at.prefix), default=0.0)
