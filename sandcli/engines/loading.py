"""Models and tokenizers from a folder, and the one way in which a conversation becomes tokens.

Training and inference both render through here, so that the policy sees at inference what it was trained on.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils.logging import disable_progress_bar

from sandcli.engines.adapters import adapter_base, is_adapter
from sandcli.errors import PrerequisiteError, UsageError
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


def load_model(folder: Path, dtype: str = "auto", training: bool = False) -> Any:
    """The model of a folder, an adapter merged into its base; `auto` is bfloat16 on a GPU and float32 elsewhere.

    Weights that are trained stay in float32: at a learning rate of 1e-5 most updates would be rounded away.
    Raises `PrerequisiteError` where there is not enough memory for it.
    """
    gpu = torch.cuda.is_available()
    if dtype == "auto":
        dtype = "bfloat16" if gpu and not training else "float32"
    source = adapter_base(folder) if is_adapter(folder) else str(folder)
    _must_fit(Path(source), dtype, gpu)
    model = AutoModelForCausalLM.from_pretrained(
        source, dtype=getattr(torch, dtype), device_map="cuda" if gpu else None
    )
    if source == str(folder):
        return model
    from peft import PeftModel

    return PeftModel.from_pretrained(model, folder).merge_and_unload()


def _must_fit(folder: Path, dtype: str, gpu: bool) -> None:
    """Say so before a machine swaps itself to death; files that are no safetensors are not known well enough."""
    weights = sum(map(_weights, folder.glob("*.safetensors")))
    needed = weights * getattr(torch, dtype).itemsize
    free = torch.cuda.mem_get_info()[0] if gpu else psutil.virtual_memory().available
    if needed > free:
        raise PrerequisiteError(
            f"the model in {folder} needs {needed / 2**30:.1f} GiB in {dtype}, and {free / 2**30:.1f} GiB are free",
            "take a smaller model, free memory, or serve it elsewhere and use --engine server",
        )


def _weights(file: Path) -> int:
    with safe_open(file, framework="pt") as tensors:
        return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118


def context_length(config: Any, bound: int = 0) -> int:
    """The most tokens that a model reads and writes in one conversation; `bound` 0 is none."""
    limit = int(config.max_position_embeddings)
    return min(limit, bound) if bound else limit


def stop_ids(folder: Path, tokenizer: Any) -> set[int]:
    """Every token that ends a turn: the tokenizer's, and those that the model was published with."""
    folder = Path(adapter_base(folder)) if is_adapter(folder) else folder
    published: Any = []
    if (folder / "generation_config.json").exists():
        published = GenerationConfig.from_pretrained(folder).eos_token_id
    published = published if isinstance(published, list) else [published]
    return {token for token in [tokenizer.eos_token_id, *published] if token is not None}


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
