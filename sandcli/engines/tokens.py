"""Conversations as tokens: the one way in which they become so, and where a model stops and ends.

Training and inference both render through here, so that the policy sees at inference what it was trained on.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import AutoTokenizer

from sandcli.engines.adapters import weights_of
from sandcli.errors import ContextOverflow, UsageError
from sandcli.messages import Message

_TODAY = datetime(2024, 7, 26)
"""The Llama templates write a date into the system turn, 3.2's today's; a fixed one keeps every prompt the same.

It is the date that Llama-3.1's template falls back on.
"""

_SHAPE = [Message("system", "s"), Message("user", "u"), Message("assistant", "a"), Message("user", "u")]
"""The kind of conversation that every model here must take."""


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder. Raises `UsageError` where there is none, or no chat template that we can use."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (ValueError, OSError) as error:
        why = str(error).strip().splitlines()[0]
        raise UsageError(f"the model in {folder} has no tokenizer: {why}", "copy its tokenizer files there") from None
    if not tokenizer.chat_template:
        raise UsageError(
            f"the model in {folder} has no chat template",
            "use an instruction-tuned model, or add chat_template.jinja",
        )
    render(tokenizer, _SHAPE, answer=True)  # a template refuses roles by raising: here, before weights are loaded
    return tokenizer


def context_length(config: Any, bound: int = 0) -> int:
    """The most tokens that a model reads and writes in one conversation; `bound` 0 is none."""
    limit = int(config.max_position_embeddings)
    return min(limit, bound) if bound else limit


def stop_ids(folder: Path, tokenizer: Any) -> set[int]:
    """Every token that ends a turn: the tokenizer's, and those that the model was published with."""
    file = Path(weights_of(folder)) / "generation_config.json"
    published = json.loads(file.read_text()).get("eos_token_id") if file.exists() else None
    published = published if isinstance(published, list) else [published]
    return {token for token in [tokenizer.eos_token_id, *published] if token is not None}


def render(tokenizer: Any, messages: Sequence[Message], answer: bool) -> str:
    """The conversation as the model's own text; `answer` opens the assistant's next turn.

    Raises `UsageError` where the template refuses it, as Gemma's does a system message.
    """
    try:
        text = tokenizer.apply_chat_template(
            [message._asdict() for message in messages],
            tokenize=False,
            add_generation_prompt=answer,
            date_string=_TODAY.strftime("%d %b %Y"),
            strftime_now=_TODAY.strftime,  # what is given here goes before the function of that name in transformers
        )
    except TemplateError as error:
        raise UsageError(
            f"the chat template of {tokenizer.name_or_path} refuses a conversation: {error}",
            "use a model whose template takes a system message, as those of Llama-3.1, Qwen2.5 and SmolLM2 do",
        ) from None
    return str(text)


def encode(tokenizer: Any, text: str) -> list[int]:
    """Rendered text as token ids; the text already holds every special token."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def prompt_ids(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """The tokens of a prompt; where the last message is the assistant's, the model is to continue it."""
    if messages[-1].role == "assistant":
        text = render(tokenizer, messages[:-1], answer=True) + messages[-1].content
    else:
        text = render(tokenizer, messages, answer=True)
    return encode(tokenizer, text)


def fitting_ids(tokenizer: Any, messages: Sequence[Message], max_tokens: int, limit: int) -> list[int]:
    """The same, where there is room for the answer. Raises `ContextOverflow` where prompt and answer exceed `limit`."""
    ids = prompt_ids(tokenizer, messages)
    if len(ids) + max_tokens > limit:
        raise ContextOverflow(len(ids) + max_tokens, limit)
    return ids
