"""How the base model writes a guided deliberation: one sentence on each option, then the conclusion."""

import asyncio
from collections.abc import Sequence

import pytest

from sandcli.engines.base import Completion, Sampling
from sandcli.engines.scripted import ScriptedEngine
from sandcli.messages import Message
from sandcli.method.acceptance import rejection_reason
from sandcli.method.deliberation import Option, Question
from sandcli.method.writing import write_guided


def test_guided_deliberation_repeats_the_verdict_on_every_candidate() -> None:
    class Base(ScriptedEngine):
        async def generate(self, messages: Sequence[Message], sampling: Sampling) -> list[Completion]:
            reply = " it is so" if messages[-1].content.endswith("because") else " So I will take lamp."
            return [Completion(reply, 3, "stop")]

    judged = {"look": "hindered", "take lamp": "advanced", "fly": "did not affect"}
    order = [Option(name, f"I {said} the task.") for name, said in judged.items()]
    asked = Question([Message("assistant", 'My options: (1) look; (2) take lamp; (3) fly. With "look" I')], order)
    written = asyncio.run(write_guided(Base([]), asked, Sampling(max_tokens=9)))
    assert written.finish == "stop"
    assert written.text == (
        " would hinder the task, because it is so."
        ' With "take lamp" I would advance the task, because it is so.'
        ' With "fly" I would not affect the task, because it is so. So I will take lamp.'
    )
    assert written.tokens == 12


@pytest.mark.parametrize("said", [Completion(" it is", 9, "length"), Completion(" .", 1, "stop")])
def test_guided_deliberation_with_an_empty_or_cut_sentence_is_rejected(said: Completion) -> None:
    class Base(ScriptedEngine):
        async def generate(self, messages: Sequence[Message], sampling: Sampling) -> list[Completion]:
            return [said]

    order = [Option("look", "I hindered the task."), Option("take lamp", "I advanced the task.")]
    asked = Question([Message("assistant", 'My options: (1) look; (2) take lamp. With "look" I')], order)
    written = asyncio.run(write_guided(Base([]), asked, Sampling(max_tokens=9)))
    assert written.finish == "length"
    assert rejection_reason(written.text, written.finish, "take lamp", ["look", "take lamp"]) is not None
