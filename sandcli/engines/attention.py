"""Attention for decoding with grouped queries, without copying keys and values for every query head.

transformers repeats keys and values up to the number of query heads wherever there is a mask, which on a CPU costs
more than the rest of a decoding step. With one query position, the heads of a group can be handed over as
positions instead: they attend to the same keys under the same mask. A step of SmolLM2-135M with 16 rows
of 600 tokens takes 0.16 s so, 0.36 s otherwise (2 threads).
"""

from typing import Any

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

GROUPED = "sand_grouped"
"""The name under which models take this attention."""


def grouped_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Query [batch, heads, positions, size]; key and value [batch, groups, length, size]."""
    batch, heads, positions, size = query.shape
    if positions > 1:
        output: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return output
    grouped = query.view(batch, key.shape[1], -1, size)
    scale = options.get("scaling")
    attended = scaled_dot_product_attention(grouped, key, value, attn_mask=attention_mask, scale=scale)
    return attended.reshape(batch, 1, heads, size), None


AttentionInterface.register(GROUPED, grouped_attention)
AttentionMaskInterface.register(GROUPED, sdpa_mask)
