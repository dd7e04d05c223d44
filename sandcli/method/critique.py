"""What did an action lead to? The critique of one candidate. (Paper, Eq. 5.) Pure."""

import re
from typing import Literal, NamedTuple

from sandcli.messages import Message
from sandcli.method.inconsistency import ExpertStep
from sandcli.method.texts import first_sentences, format_steps, on_one_line
from sandcli.prompts import Prompts
from sandcli.records import End, Rollout

Verdict = Literal["advanced", "hindered", "did not affect"]
"""What an action did to the task."""

_SENTENCES = 3
_VERDICT = re.compile(r"\b(advanced|hindered|did not affect)(?= the task)")

_ENDS: dict[End, str] = {
    "done": "the episode ended before the task was completed",
    "max_steps": "the step limit was reached before the task was completed",
    "invalid_actions": "the episode was stopped after too many invalid actions in a row",
    "context": "the episode was stopped because its text became too long",
}
_UNFINISHED = "I stopped before the task was completed"
"""Why an expert trajectory ended that the world did not end: no limit stopped it."""


class Case(NamedTuple):
    """A rollout and the expert step that it branched from."""

    at: ExpertStep
    rollout: Rollout


def critique_prompt(case: Case, prompts: Prompts, history_tokens: int, by_reward: bool) -> list[Message]:
    """Ask the base model about one candidate: c = pi_base(a, e^, r).

    `history_tokens` is the budget for older observations, separately for the history and the rollout. With `by_reward`,
    the rewards give the verdict, and the model gives the reason.
    """
    at, rollout = case
    return prompts.fill(
        "critique",
        instruction=at.trajectory.instruction,
        history=format_steps(at.prefix, history_tokens),
        action=rollout.action,
        observation=on_one_line(rollout.steps[0].observation),
        rollout=format_steps(rollout.steps[1:], history_tokens),
        ending=_ending(case),
        verdict=f" {verdict_by_reward(case)} the task, because" if by_reward else "",
    )


def critique_text(prompt: list[Message], written: str) -> str:
    """What the prompt began and the model finished, at most three sentences; empty if the model wrote nothing."""
    begun = prompt[-1].content if prompt[-1].role == "assistant" else ""  # a user's own prompt may have no opening
    return first_sentences(f"{begun}{written}", _SENTENCES) if written.strip() else ""


def verdict_of(critique: str) -> str:
    """`advanced`, `hindered` or `did not affect`: what a critique says about its action; empty if it does not say."""
    given = _VERDICT.search(critique)
    return given[0] if given else ""


def verdict_by_reward(case: Case) -> Verdict:
    """What the rewards say: progress, and as much as the expert's; an end before that; or neither."""
    if _gained(case) and case.rollout.reward >= case.at.trajectory.reward:
        return "advanced"
    return "hindered" if case.rollout.end == "done" else "did not affect"


def _ending(case: Case) -> str:
    rollout = case.rollout
    if rollout.success:
        return "the task was completed."
    gained = "some progress was made" if _gained(case) else "no progress was made"
    why = _UNFINISHED if rollout.expert and rollout.end == "max_steps" else _ENDS[rollout.end]
    return f"{why}, and {gained} (score {rollout.reward:.2f})."


def _gained(case: Case) -> bool:
    """Whether the rollout reached a better score than there was before the candidate."""
    return case.rollout.reward > max((step.score for step in case.at.prefix), default=0.0)
