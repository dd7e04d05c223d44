"""How the base model writes a guided deliberation: one sentence on each option, then the conclusion."""

import asyncio
from collections.abc import Sequence

import pytest

from sandcli.agent.form import opening
from sandcli.engines.base import Completion, Sampling
from sandcli.engines.scripted import ScriptedEngine
from sandcli.messages import Message
from sandcli.method.acceptance import rejection_reason
from sandcli.method.deliberation import FlaggedStep, Option, Question
from sandcli.method.inconsistency import ExpertStep
from sandcli.method.writing import attempt, write_guided
from tests.method.made_up import trajectory


def test_guided_deliberation_repeats_the_verdict_on_every_candidate() -> None:
    class Base(ScriptedEngine):
        async def generate(self, messages: Sequence[Message], sampling: Sampling) -> list[Completion]:
            assert messages[-1].content.endswith("because it would")
            return [Completion(" be so", 3, "stop")]

    judged = {"look": "hindered", "take lamp": "advanced", "fly": "did not affect"}
    order = [Option(name, f"I {said} the task.") for name, said in judged.items()]
    asked = Question([Message("assistant", 'My options: (1) look; (2) take lamp; (3) fly. With "look" I')], order)
    written = asyncio.run(write_guided(Base([]), asked, "take lamp", Sampling(max_tokens=9)))
    assert written.finish == "stop"
    assert written.text == (
        " would hinder the task, because it would be so."
        ' With "take lamp" I would advance the task, because it would be so.'
        ' With "fly" I would not affect the task, because it would be so. So I will take lamp.'
    )
    assert written.tokens == 9


@pytest.mark.parametrize("said", [Completion(" it is", 9, "length"), Completion(" .", 1, "stop")])
def test_guided_deliberation_with_an_empty_or_cut_sentence_is_rejected(said: Completion) -> None:
    class Base(ScriptedEngine):
        async def generate(self, messages: Sequence[Message], sampling: Sampling) -> list[Completion]:
            return [said]

    order = [Option("look", "I hindered the task."), Option("take lamp", "I advanced the task.")]
    asked = Question([Message("assistant", 'My options: (1) look; (2) take lamp. With "look" I')], order)
    written = asyncio.run(write_guided(Base([]), asked, "take lamp", Sampling(max_tokens=9)))
    assert written.finish == "length"
    assert rejection_reason(written.text, written.finish, "take lamp", ["look", "take lamp"]) is not None


def test_free_deliberation_is_a_body_and_one_sentence() -> None:
    """Nothing is generated after the conclusion."""
    asked: list[tuple[str, tuple[str, ...]]] = []

    class Base(ScriptedEngine):
        async def generate(self, messages: Sequence[Message], sampling: Sampling) -> list[Completion]:
            asked.append((messages[-1].content, sampling.stop))
            full = " (1) shows little,\n\n(2) is what I need. So I will take lamp. Then I rest."
            said = full[len(messages[-1].content.partition("lamp.")[2]) :]
            cut = min((at for at in map(said.find, sampling.stop) if at >= 0), default=len(said))
            return [Completion(said[:cut], len(said[:cut].split()), "stop")]

    order = [Option("look"), Option("take lamp")]
    question = Question([Message("assistant", opening(["look", "take lamp"]))], order)
    flagged = FlaggedStep(ExpertStep(trajectory(), 2), [order[1], order[0]])
    written = asyncio.run(attempt(Base([]), question, flagged, Sampling(max_tokens=99), guided=False))
    assert written.thought == (
        "My options: (1) look; (2) take lamp. (1) shows little,\n(2) is what I need. So I will take lamp."
    )
    assert [stop for _, stop in asked] == [("So I will",), (". ", "\n")]
    assert asked[1][0].endswith("(2) is what I need. So I will")
