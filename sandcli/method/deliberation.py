"""One attempt at a deliberation: the base model goes on from an opening, and what it wrote is judged."""

from typing import NamedTuple

from sandcli.agent.turns import is_deliberation
from sandcli.engines.base import Completion, Engine, Sampling
from sandcli.messages import Message
from sandcli.method.ablations import Dilemma, Question, options
from sandcli.method.texts import CONCLUSION, concluded, fault, judgement


class Attempt(NamedTuple):
    """A deliberation, opening included; empty where `fault` says why it may not become data."""

    thought: str
    fault: str | None
    tokens: int


async def attempt(engine: Engine, asked: Question, dilemma: Dilemma, sampling: Sampling, guided: bool) -> Attempt:
    """Ask once. Raises `ContextOverflow` where the question alone is too long."""
    written = await (write_guided(engine, asked, sampling) if guided else _write(engine, asked.messages, sampling))
    thought = asked.messages[-1].content + (concluded(written.text) or "")
    why = fault(written.text, written.finish, dilemma.action, options(dilemma, thought))
    if why is None and not is_deliberation(thought):
        why = "lists no alternatives"
    return Attempt("" if why else thought, why, written.tokens)


async def _write(engine: Engine, messages: list[Message], sampling: Sampling) -> Completion:
    """What the base model writes after the opening. Where it stops without a conclusion it is asked to conclude."""
    first = await engine.generate(messages, sampling)
    if first[0].finish == "length" or CONCLUSION in first[0].text:
        return first[0]
    said = f"{first[0].text.rstrip()} {CONCLUSION}"
    (second,) = await engine.generate(_continued(messages, said), sampling)
    decided = second.text.rstrip().rstrip(".") + "." * (second.finish == "stop")
    return Completion(f"{said}{decided}", first[0].tokens + second.tokens, second.finish)


async def write_guided(engine: Engine, asked: Question, sampling: Sampling) -> Completion:
    """The same, with one sentence asked for on every option first, which begins as its critique judged."""
    said, tokens = "", 0
    sentence = sampling._replace(stop=(*sampling.stop, ". "))
    for number, option in enumerate(asked.order):
        said += (f' With "{option.action}" I' if number else "") + judgement(option.critique)
        (part,) = await engine.generate(_continued(asked.messages, said), sentence)
        tokens += part.tokens
        if part.finish == "length" or not part.text.strip(" ."):
            return Completion(said, tokens, "length")  # a sentence that came to nothing is no analysis
        said += f" {part.text.strip().rstrip('.')}."
    rest = await _write(engine, _continued(asked.messages, said), sampling)
    return Completion(f"{said}{rest.text}", tokens + rest.tokens, rest.finish)


def _continued(messages: list[Message], said: str) -> list[Message]:
    return [*messages[:-1], Message("assistant", f"{messages[-1].content}{said}")]
