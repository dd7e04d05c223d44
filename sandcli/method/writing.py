"""How the base model writes a deliberation: in one go, or guided sentence by sentence. The engine is passed in."""

from typing import NamedTuple

from sandcli.agent.form import is_deliberation, listed_options, opening
from sandcli.engines.base import Completion, Engine, Sampling
from sandcli.messages import Message
from sandcli.method.acceptance import CONCLUSION, conclusion, rejection_reason, up_to_conclusion
from sandcli.method.critique import verdict_of
from sandcli.method.deliberation import FlaggedStep, Question

_FORESEEN = {"advanced": "advance", "hindered": "hinder", "did not affect": "not affect"}


class Attempt(NamedTuple):
    """A deliberation, opening included; empty if `rejected` says why it may not become data."""

    thought: str
    rejected: str | None
    tokens: int


async def attempt(
    engine: Engine, question: Question, flagged: FlaggedStep, sampling: Sampling, guided: bool
) -> Attempt:
    """Ask once. Raises `ContextOverflow` if the question alone is too long."""
    if guided:
        written = await write_guided(engine, question, flagged.action, sampling)
    else:
        written = await _write(engine, question.messages, sampling)
    whole = f"{question.messages[-1].content}{written.text}"
    candidates = [option.action for option in question.order] or listed_options(whole)
    head = opening(candidates) if question.order else f"{whole.partition('.')[0]}."
    text = whole.removeprefix(head)
    thought = f"{head} {up_to_conclusion(text, candidates)}"
    why = rejection_reason(text, written.finish, flagged.action, candidates)
    why = why or (None if is_deliberation(thought) else "lists no alternatives")
    return Attempt("" if why else thought, why, written.tokens)


async def _write(engine: Engine, messages: list[Message], sampling: Sampling) -> Completion:
    """What the base model writes after the opening, in two parts: the body, and the sentence that concludes it.

    This way a model that does not conclude is made to, and one that would continue after its conclusion stops there.
    """
    (first,) = await engine.generate(messages, sampling._replace(stop=(*sampling.stop, CONCLUSION)))
    if first.finish == "length" or conclusion(first.text, ()):  # in a different wording, such as `Therefore, I will`
        return first
    said = f"{first.text.rstrip()} {CONCLUSION}"
    (second,) = await engine.generate(_continued(messages, said), _one_sentence(sampling))
    return Completion(f"{said}{second.text}", first.tokens + second.tokens, second.finish)


async def write_guided(engine: Engine, question: Question, action: str, sampling: Sampling) -> Completion:
    """One sentence on each option, which starts with its critique's verdict; the conclusion is given."""
    said, tokens = "", 0
    for option in question.order:
        with_it = f' With "{option.action}" I'
        begun = not said and question.messages[-1].content.endswith(with_it)
        said += ("" if begun else with_it) + _foreseen(option.note)
        (part,) = await engine.generate(_continued(question.messages, said), _one_sentence(sampling))
        tokens += part.tokens
        if part.finish == "length" or not part.text.strip(" ."):
            return Completion(said, tokens, "length")  # an empty or cut sentence is no analysis
        said += f" {part.text.strip().rstrip('.')}."
    return Completion(f"{said} {CONCLUSION} {action}.", tokens, "stop")


def _one_sentence(sampling: Sampling) -> Sampling:
    return sampling._replace(stop=(*sampling.stop, ". ", "\n"))


def _foreseen(note: str) -> str:
    """A critique's verdict as something said before acting; empty if there is none."""
    verdict = verdict_of(note)
    return f" would {_FORESEEN[verdict]} the task, because it would" if verdict else ""


def _continued(messages: list[Message], said: str) -> list[Message]:
    return [*messages[:-1], Message("assistant", f"{messages[-1].content}{said}")]
