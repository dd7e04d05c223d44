"""Reads the files beside a model's weights: its type and sizes, its context length, the tokens that end a turn."""

import json
from pathlib import Path
from typing import Any

import msgspec
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from sandcli.engines.adapters import weights_of
from sandcli.errors import UsageError


def load_config(folder: Path, trust_code: bool = False) -> Any:
    """Load a model's config; for an adapter, its base's. Code that comes with it is run only if that is trusted.

    Raises `UsageError` for a type that transformers does not know, and for a model that needs code of its own.
    """
    source = weights_of(folder)
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=trust_code)
    except load_errors(trust_code) as error:
        refuse_own_code(source, trust_code)
        raise UsageError(
            f"transformers cannot read the config of the model in {source}: {first_line(error)}",
            "use a model of a type that the installed transformers knows, or install a newer one",
        ) from None


def load_errors(trust_code: bool) -> tuple[type[BaseException], ...]:
    """What the loaders of transformers raise; code of the model's own may raise anything, or exit."""
    known = ValueError, OSError, KeyError, RuntimeError, StrictDataclassError
    return (Exception, SystemExit) if trust_code else known


def refuse_own_code(folder: Path, trust_code: bool) -> None:
    """Raise `UsageError` if a model that could not be loaded brings code of its own that is not to be run."""
    files = (folder / name for name in ("config.json", "tokenizer_config.json"))
    if not trust_code and any(file.exists() and '"auto_map"' in file.read_text(errors="replace") for file in files):
        raise UsageError(
            f"the model in {folder} needs code that comes with it, which is not run",
            "use a model of a type that the installed transformers knows, or, if you trust that code, set "
            "model.trust_code = true",
        )


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error message, or the error's type if the message is empty."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def context_length(config: Any, bound: int = 0) -> int:
    """Return how many tokens one conversation may have: the model's limit, or `bound` if that is smaller and not 0.

    Raises `UsageError` if neither is known.
    """
    limit = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    if not limit and not bound:
        raise UsageError(
            f"the config of a {config.model_type} model does not say how long a conversation may be",
            "set max_length in sand.toml: in [engine] for generating, in [sft] and [train] for training",
        )
    return min(int(known) for known in (limit, bound) if known)


def longest(folder: Path, bound: int, trust_code: bool = False) -> int:
    """The context length in a model's own config, within a bound."""
    return context_length(load_config(folder, trust_code), bound)


class _Generation(msgspec.Struct, frozen=True):
    """The part of generation_config.json that counts here."""

    eos_token_id: int | list[int] | None = None


def stop_ids(folder: Path, tokenizer: Any) -> set[int]:
    """Return every token that ends a turn: the tokenizer's, and those in generation_config.json.

    Raises `UsageError` if that file cannot be read.
    """
    file = weights_of(folder) / "generation_config.json"
    try:
        published = msgspec.convert(json.loads(file.read_text()), _Generation) if file.exists() else _Generation()
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{file} is not a JSON object with tokens as eos_token_id: {error}", "copy it again, or remove it"
        ) from None
    ends = published.eos_token_id if isinstance(published.eos_token_id, list) else [published.eos_token_id]
    return {token for token in [tokenizer.eos_token_id, *ends] if token is not None}
