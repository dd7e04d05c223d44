"""Parsing a model's text takes linear time, whatever it contains."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from sandcli.agent.form import is_deliberation, listed_options, opening
from sandcli.agent.turns import has_action_line, normalise, parse
from sandcli.envs.alfworld.grammars import to_grammar
from sandcli.method.acceptance import rejection_reason, up_to_conclusion
from sandcli.method.critique import verdict_of
from sandcli.method.texts import first_sentences, repeats
from tests.agent.texts import FORMS

LENGTH = 100_000

_SECONDS = 5.0
"""CPU seconds of this process. Linear time needs a hundredth of this; quadratic time, ten times as much."""

READERS: list[Callable[[str], Any]] = [
    *(partial(parse, form=form) for form in FORMS),
    has_action_line,
    normalise,
    is_deliberation,
    listed_options,
    verdict_of,
    lambda text: up_to_conclusion(text, ["look", "go"]),
    repeats,
    lambda text: to_grammar(f"put {text}", "move"),
    lambda text: first_sentences(text, 3),
    lambda text: rejection_reason(text, "stop", "look", ["look", "go"]),
]


@pytest.mark.parametrize("piece", [" ", "\n", "\t\n", "!", ".'", '"', "(1", "(1) ", "So I will ", "look ", "x", "a. "])
@pytest.mark.parametrize("begin", ["Thought:", "Action:", opening(["a", "b"])[:-1], "So I will look"])
def test_long_texts_are_read_in_linear_time(begin: str, piece: str) -> None:
    text = begin + piece * (LENGTH // len(piece)) + "x"
    started = time.process_time()
    for read in READERS:
        read(text)
    assert time.process_time() - started < _SECONDS
