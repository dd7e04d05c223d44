"""Texts as vectors of length 1, to find those that are alike."""

import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sandcli.engines.configs import first_line, load_errors
from sandcli.errors import UsageError
from sandcli.models import require_package

Vectors = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]
"""One row for each text."""

_SIZE = 1024
_TOGETHER = 32
_LONGEST = 512
"""Tokens of a text that a model reads."""


def by_words(texts: Sequence[str]) -> Vectors:
    """Count the words of each text; a hash gives every word its place."""
    counts = np.zeros((len(texts), _SIZE), dtype=np.float32)
    for row, text in zip(counts, texts, strict=True):
        for word in re.findall(r"\w+", text.lower()):
            row[zlib.crc32(word.encode()) % _SIZE] += 1
    return unit(counts)


def unit(vectors: Vectors) -> Vectors:
    """Bring every row to length 1; a row of zeros stays as it is."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Vectors = vectors / np.maximum(lengths, np.float32(1e-12))
    return scaled


def by_model(folder: Path, trust_code: bool = False) -> Embed:
    """Load a model whose last hidden states, averaged over the tokens of a text, are its vector.

    Raises `UsageError` if it cannot be loaded, `PrerequisiteError` if torch is not installed.
    """
    require_package("torch", "retrieval.embedding")
    import torch
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_code)
        model: Any = AutoModel.from_pretrained(folder, trust_remote_code=trust_code).eval()
    except load_errors(trust_code) as error:
        raise UsageError(
            f"retrieval.embedding {folder} cannot be loaded: {first_line(error)}", "choose another, or leave it empty"
        ) from None
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def embed(texts: Sequence[str]) -> Vectors:
        parts = []
        for at in range(0, len(texts), _TOGETHER):
            batch = list(texts[at : at + _TOGETHER])
            read = tokenizer(batch, padding=True, truncation=True, max_length=_LONGEST, return_tensors="pt")
            counts = read["attention_mask"].unsqueeze(-1)
            states = model(input_ids=read["input_ids"], attention_mask=read["attention_mask"]).last_hidden_state
            parts.append(((states * counts).sum(1) / counts.sum(1).clamp(min=1)).float().numpy())
        return unit(np.concatenate(parts))

    return embed  # type: ignore[no-any-return]


def nearest(vectors: Vectors, query: Vectors, count: int) -> list[int]:
    """The rows that are most like a query (cosine), best first; of equals the first."""
    order = np.argsort(-(vectors @ query), kind="stable")
    return [int(row) for row in order[:count]]
