"""Conversations as tokens."""

import re
from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from sandcli.engines.configs import first_line, load_errors, refuse_own_code
from sandcli.engines.templates import refuse_template, render
from sandcli.errors import ContextOverflow, UsageError
from sandcli.messages import Message

_PARTS_KEPT = 2**16
"""Parts of conversations whose tokens `Prompts` keeps; a part takes about 1 KiB."""

_PROBES = ("", "user\n", " You act.\n\n", "Thought: I look.\nAction: look", "\t12345 e\u0301 日本")
"""Texts between special tokens that show whether a tokenizer encodes each on its own."""


def load_tokenizer(folder: Path, trust_code: bool = False) -> Any:
    """Load the tokenizer of a model folder. Raises `UsageError` if it has none, or no usable chat template."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_code)
    except load_errors(trust_code) as error:
        refuse_own_code(folder, trust_code)
        raise UsageError(
            f"the model in {folder} has no tokenizer: {first_line(error)}", "copy its tokenizer files there"
        ) from None
    if not tokenizer.chat_template:
        raise UsageError(
            f"the model in {folder} has no chat template",
            "use an instruction-tuned model, or add chat_template.jinja",
        )
    refuse_template(tokenizer)  # now, before the weights are loaded
    return tokenizer


def encode(tokenizer: Any, text: str) -> list[int]:
    """Tokenise rendered text, which already holds every special token."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def prompt_text(tokenizer: Any, messages: Sequence[Message]) -> str:
    """Render a prompt; if the last message is the assistant's, the model is to continue it."""
    if messages[-1].role == "assistant":
        return render(tokenizer, messages[:-1], answer=True) + messages[-1].content
    return render(tokenizer, messages, answer=True)


def prompt_ids(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Tokenise a whole prompt."""
    return encode(tokenizer, prompt_text(tokenizer, messages))


class Prompts:
    """Turns conversations into token ids, and tokenises every part of a history only once.

    The special tokens in a text split it into parts, and a tokenizer encodes each part on its own. So the tokens of a
    part are kept, and a turn costs only what it adds, also if several conversations continue the same history.
    """

    def __init__(self, tokenizer: Any, limit: int) -> None:
        """`limit` is the model's context length."""
        self._tokenizer = tokenizer
        self._limit = limit
        self._marks = _marks(tokenizer)
        self._part_ids = lru_cache(maxsize=_PARTS_KEPT)(self._encode_part)

    def ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the same tokens as `prompt_ids`."""
        if self._marks is None:
            return prompt_ids(self._tokenizer, messages)
        ids = array("I")
        for part in _parts(self._marks, prompt_text(self._tokenizer, messages)):
            ids += self._part_ids(part)
        return ids.tolist()

    def fitting_ids(self, messages: Sequence[Message], max_tokens: int) -> list[int]:
        """Return the tokens of a prompt. Raises `ContextOverflow` if they leave no room for `max_tokens`."""
        ids = self.ids(messages)
        if len(ids) + max_tokens > self._limit:
            raise ContextOverflow(len(ids) + max_tokens, self._limit)
        return ids

    def first_tokens(self, messages: Sequence[Message], texts: Sequence[str]) -> list[int]:
        """Return the first token of each text, if it continues the last message, which is the assistant's."""
        *before, last = messages
        known = len(self.ids(messages))
        return [self.ids([*before, last._replace(content=last.content + text)])[known] for text in texts]

    def text(self, token: int) -> str:
        """Return a token as text."""
        return str(self._tokenizer.decode([token]))

    def _encode_part(self, part: str) -> "array[int]":
        return array("I", encode(self._tokenizer, part))


def _marks(tokenizer: Any) -> "re.Pattern[str] | None":
    """Return a pattern for the tokens that split a text before anything else is done to it.

    Returns None if the text cannot safely be split there: if such a token swallows the white space around it, or if
    the parts of a probe have other tokens than the whole.
    """
    marks = [token for token in tokenizer.added_tokens_decoder.values() if not token.normalized]
    greedy = any(token.lstrip or token.rstrip or token.single_word for token in marks)
    if not marks or greedy or not tokenizer.is_fast or tokenizer.split_special_tokens:
        return None
    contents = sorted((token.content for token in marks), key=len, reverse=True)  # the longest match wins
    pattern = re.compile("|".join(map(re.escape, contents)))
    probe = "".join(mark + text for mark in contents[-2:] for text in _PROBES)
    apart = [token for part in _parts(pattern, probe) for token in encode(tokenizer, part)]
    return pattern if apart == encode(tokenizer, probe) else None


def _parts(marks: "re.Pattern[str]", text: str) -> Iterator[str]:
    """Split a text before every special token."""
    starts = [0, *(match.start() for match in marks.finditer(text)), len(text)]
    return (text[start:end] for start, end in pairwise(starts) if start < end)
