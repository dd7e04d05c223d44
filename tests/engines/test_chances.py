"""The chances of openings from servers, and texts as vectors."""

import math
from typing import Any

import pytest

from sandcli.engines.base import Completion, Model, Sampling
from sandcli.engines.embedding import by_words, nearest
from sandcli.errors import PrerequisiteError
from sandcli.messages import Message
from tests.servers import PROMPT, Behaviour, Serve, answers, opened, run, says

ASKED = Sampling(max_tokens=1, openings=(" lamp", " find", " act"))
BEGUN = [*PROMPT, Message("assistant", "Thought:")]


def tells(top: Any) -> Behaviour:
    choice = {"text": " lamp", "finish_reason": "length", "logprobs": {"top_logprobs": top}}
    return answers(200, {"choices": [choice], "usage": {"completion_tokens": 1}})


def asked(model: Model, server: Any) -> Completion:
    found: list[Completion] = []

    async def task() -> None:
        async with opened(model, server) as (engine, _):
            found.extend(await engine.generate(BEGUN, ASKED))

    run(task)
    return found[0]


def test_server_is_asked_for_probabilities_and_a_token_that_it_leaves_out_has_none(words: Model, serve: Serve) -> None:
    server = serve(tells([{"lamp": math.log(0.5), "act": math.log(0.125), "you": -3.0}]))
    assert asked(words, server).chances == pytest.approx((0.5, 0.0, 0.125))
    assert server.requests[-1].body["logprobs"] == 20


@pytest.mark.parametrize("behaviour", [says("lamp"), tells(None), tells([]), tells([None])])
def test_server_that_tells_no_probabilities_is_refused(words: Model, serve: Serve, behaviour: Behaviour) -> None:
    server = serve(behaviour)
    with pytest.raises(PrerequisiteError, match="does not tell the probabilities of tokens") as caught:
        asked(words, server)
    assert "retrieval.weight" in caught.value.fix


def test_texts_are_alike_that_have_words_in_common() -> None:
    texts = ["The lamp is here.", "Nothing", "the LAMP, the lamp", ""]
    vectors = by_words(texts)
    assert vectors @ by_words(["the lamp"])[0] == pytest.approx([2 / math.sqrt(8), 0, 1, 0])
    assert nearest(vectors, by_words(["the lamp"])[0], 3) == [2, 0, 1]
    assert (by_words(texts) == vectors).all()
