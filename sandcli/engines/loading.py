"""Models and tokenizers from a folder, and the one way in which a conversation becomes tokens.

Training and inference both render through here, so that the policy sees at inference what it was trained on.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from sandcli.errors import UsageError
from sandcli.react import Message

disable_progress_bar()  # a stage shows its own progress

_DATE = "26 Jul 2024"
"""Llama-3.1's template writes a date into the system turn; a fixed one keeps every prompt the same."""


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder. Raises `UsageError` where it has no chat template."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if not tokenizer.chat_template:
        raise UsageError(
            f"the model in {folder} has no chat template",
            "use an instruction-tuned model, or add chat_template.jinja",
        )
    return tokenizer


def load_model(folder: Path, training: bool = False) -> Any:
    """The model of a folder, an adapter merged into its base; bfloat16 for inference on a GPU, else float32.

    Weights that are trained stay in float32: at a learning rate of 1e-5 most updates would be rounded away.
    """
    gpu = torch.cuda.is_available()
    options = {
        "dtype": torch.bfloat16 if gpu and not training else torch.float32,
        "device_map": "cuda" if gpu else None,
    }
    if not is_adapter(folder):
        return AutoModelForCausalLM.from_pretrained(folder, **options)
    from peft import PeftModel

    model = AutoModelForCausalLM.from_pretrained(adapter_base(folder), **options)
    return PeftModel.from_pretrained(model, folder).merge_and_unload()


def is_adapter(folder: Path) -> bool:
    """Whether a model folder holds a PEFT adapter instead of whole weights."""
    return (folder / "adapter_config.json").exists()


def adapter_base(folder: Path) -> str:
    """The model that an adapter was trained on."""
    return str(json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"])


def context_length(config: Any) -> int:
    """The most tokens that a model reads and writes in one conversation."""
    return int(config.max_position_embeddings)


def render(tokenizer: Any, messages: Sequence[Message], answer: bool) -> str:
    """The conversation as the model's own text; `answer` opens the assistant's next turn."""
    return str(
        tokenizer.apply_chat_template(
            [message._asdict() for message in messages],
            tokenize=False,
            add_generation_prompt=answer,
            date_string=_DATE,
        )
    )


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
