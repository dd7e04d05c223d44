"""Attention for sequences of different lengths in one forward pass, without padding.

The new tokens of all sequences are concatenated; all other operations of a transformer treat each token on its own.
Only attention splits them again: each sequence attends to its own keys and values, which grow in place. A piece of a
prompt and a single new token are treated alike.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from sandcli.errors import PrerequisiteError

RAGGED = "sand_ragged"
"""The name of this attention in transformers."""

_ROOM = 256
"""Memory is allocated for multiples of this many positions: keys and values are not copied for every new token, and
memory that one sequence frees fits the next."""


_OF_NO_EFFECT = {
    "dropout",
    "sliding_window",  # the config is checked for windows that matter
    "position_ids",
    "use_cache",
    "output_attentions",
    "output_router_logits",
}
"""Arguments that models pass to an attention function and that have no effect here."""

_PROBE = 24, 8
"""Lengths of the sequences on which this attention is compared with the model's own when a model is loaded."""

_FINE, _COARSE = 1e-3, 0.2
"""The allowed difference of the logits, as a share of their spread: in float32, and in types of lower precision.

Models with another kind of attention differ by a quarter or more.
"""


class KeyValues(NamedTuple):
    """Keys and values of one sequence: [layer, key or value, group, position, size]; `length` positions are filled.

    Filled positions never change. One owner may append in place; everyone else who continues from here makes a copy.
    """

    states: Tensor
    length: int

    @property
    def bytes(self) -> int:
        """The size in memory."""
        return int(self.states.nbytes)

    @property
    def bytes_per_token(self) -> int:
        """The size of one position."""
        layers, both, groups, _, size = self.states.shape
        return int(layers * both * groups * size * self.states.element_size())

    def copy(self, length: int) -> "KeyValues":
        """Return a copy of the first positions, to be appended to."""
        return KeyValues(_with_room(self.states[:, :, :, :length], length), length)

    def grown(self, tokens: int) -> "KeyValues":
        """Return the same with room for more tokens."""
        length = self.length + tokens
        return self if length <= self.states.shape[3] else self._replace(states=_with_room(self.states, length))


def _with_room(states: Tensor, length: int) -> Tensor:
    """Return a copy with room for this many positions."""
    room = -(-length // _ROOM) * _ROOM
    return torch.nn.functional.pad(states, (0, 0, 0, room - states.shape[3]))


class Segment(NamedTuple):
    """A sequence's part of a forward pass: new tokens that follow those in `values`, which has room for them."""

    values: KeyValues
    tokens: int
    mask: Tensor | None

    @property
    def end(self) -> int:
        """The length of the sequence after this pass."""
        return self.values.length + self.tokens


def segment(values: KeyValues, count: int, heads: int) -> Segment:
    """Build a segment. `heads` is the number of query heads that share a key head; see `ragged_attention`."""
    if count == 1:
        return Segment(values, 1, None)  # a single position sees all before it
    start, device = values.length, values.states.device
    mask = torch.ones(count, start + count, dtype=torch.bool, device=device).tril(start)
    return Segment(values, count, mask.repeat(heads, 1))


def ragged_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    segments: Sequence[Segment],
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Compute attention for the tokens of all segments, one segment after the other.

    `query` is [1, heads, tokens, size]; `key` and `value` are [1, groups, tokens, size]. Raises `TypeError` for
    arguments that would change the attention, such as a soft cap.
    """
    if changing := [name for name, given in others.items() if given is not None and name not in _OF_NO_EFFECT]:
        raise TypeError(f"attention with {', '.join(changing)}")
    _, heads, tokens, size = query.shape
    output = query.new_empty(1, tokens, heads, size)
    at = 0
    for values, count, mask in segments:
        end, here = values.length + count, slice(at, at + count)
        keys, vals = values.states[module.layer_idx]
        keys[:, values.length : end] = key[0, :, here]
        vals[:, values.length : end] = value[0, :, here]
        # The query heads of a group become further positions, so their common keys need not be copied for each head.
        grouped = query[0, :, here].reshape(1, key.shape[1], -1, size)
        attended = scaled_dot_product_attention(
            grouped, keys[None, :, :end], vals[None, :, :end], attn_mask=mask, scale=scaling
        )
        output[0, here] = attended.reshape(heads, count, size).transpose(0, 1)
        at += count
    return output, None


AttentionInterface.register(RAGGED, ragged_attention)


def _unlike(config: Any) -> str:
    """Name what a model has that this attention would silently compute wrongly."""
    layers = getattr(config, "layer_types", None)
    if set(layers or ["full_attention"]) != {"full_attention"}:
        return "layers of another kind than full attention"
    window = getattr(config, "sliding_window", None)
    if window and not layers and window < config.max_position_embeddings:
        return f"attention to the last {window} tokens only"
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type")
    if rope in ("dynamic", "longrope"):
        return f"{rope} positions, which depend on the length of the longest sequence"
    return ""


class Ragged:
    """A causal language model that computes segments."""

    def __init__(self, model: Any) -> None:
        """Raise `PrerequisiteError` if this attention does not give the same result as the model's own."""
        config = model.config.get_text_config(decoder=True)
        if unlike := _unlike(config):
            raise _refusal(model, f"has {unlike}")
        self._model = model
        try:
            self._heads, self._shape = _sizes(config)
            distance = self._distance(config.vocab_size)
        except Exception as error:  # models of other kinds fail in many ways
            raise _refusal(
                model, f"computes attention in a way that the engine does not support ({type(error).__name__}: {error})"
            ) from None
        if not distance < (_FINE if model.dtype == torch.float32 else _COARSE):
            raise _refusal(model, "computes attention in a way that the engine does not support")

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def _distance(self, vocabulary: int) -> float:
        """Replace the model's attention; returns how much that changes its logits.

        Some models ignore the new attention, and others need more than it gives them. Two sequences are computed side
        by side, each in two pieces.
        """
        prompts = [[(7 * n + length) % vocabulary for n in range(length)] for length in _PROBE]
        wanted = [self._model(input_ids=self._tensor([ids]), use_cache=False).logits[0, -1] for ids in prompts]
        self._model.set_attn_implementation(RAGGED)
        _, begun = self.forward([(self.empty(), ids[:-1][:10]) for ids in prompts])
        found, _ = self.forward([(values, ids[values.length :]) for values, ids in zip(begun, prompts, strict=True)])
        return max(_share(*pair) for pair in zip(found, wanted, strict=True))

    def _tensor(self, values: Any) -> Tensor:
        return torch.tensor(values, device=self._model.device)

    def empty(self) -> KeyValues:
        """Return keys and values of no tokens."""
        return KeyValues(torch.empty(self._shape, dtype=self._model.dtype, device=self._model.device), 0)

    def forward(self, parts: Sequence[tuple[KeyValues, Sequence[int]]]) -> tuple[Tensor, list[KeyValues]]:
        """Compute new tokens of every sequence; return the logits after the last of each, and its keys and values."""
        segments = [segment(values.grown(len(ids)), len(ids), self._heads) for values, ids in parts]
        ends = self._tensor([s.tokens for s in segments]).cumsum(0) - 1
        output = self._model(
            input_ids=self._tensor([[token for _, ids in parts for token in ids]]),
            position_ids=self._tensor([[place for s in segments for place in range(s.values.length, s.end)]]),
            segments=segments,
            use_cache=False,
            logits_to_keep=ends,
        )
        return output.logits[0].float().cpu(), [s.values._replace(length=s.end) for s in segments]


def _sizes(config: Any) -> tuple[int, tuple[int, ...]]:
    """Return how many query heads share a key head, and the shape of empty keys and values."""
    groups = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return config.num_attention_heads // groups, (config.num_hidden_layers, 2, groups, 0, size)


def _share(found: Tensor, wanted: Tensor) -> float:
    """The difference of logits, as a share of their spread."""
    wanted = wanted.float().cpu()
    return float((found - wanted).norm() / (wanted - wanted.mean()).norm())


def _refusal(model: Any, why: str) -> PrerequisiteError:
    kind = model.config.model_type
    return PrerequisiteError(f"the embedded engine cannot run {kind}: it {why}", "use --engine vllm or server")
