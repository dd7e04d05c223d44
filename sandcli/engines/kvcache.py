"""Keys and values of token sequences that were computed before, for prompts that begin alike.

Agents' prompts grow turn by turn and branch from shared prefixes, and on a CPU computing the prompt is nearly the
whole cost. So the keys and values of finished sequences are kept, least recently used out first, within a
bound on memory.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer


class KeyValues(NamedTuple):
    """Per layer, keys and values of one sequence: [heads, length, head size]."""

    layers: list[tuple[Tensor, Tensor]]

    @property
    def length(self) -> int:
        """Tokens covered."""
        return self.layers[0][0].shape[1] if self.layers else 0

    @property
    def bytes(self) -> int:
        """Memory held."""
        return sum(k.nbytes + v.nbytes for k, v in self.layers)

    def first(self, length: int) -> "KeyValues":
        """The part that belongs to the first tokens, without a copy."""
        return KeyValues([(k[:, :length], v[:, :length]) for k, v in self.layers])


class _GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """A layer that grows in place: concatenation would copy every key and value on every token."""

    _ROOM = 64

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Add positions; gives all keys and values so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._rooms = [key_states[:, :, :0], value_states[:, :, :0]]
        start, end = self.get_seq_length(), self.get_seq_length() + key_states.shape[2]
        for number, states in enumerate((key_states, value_states)):
            if end > self._rooms[number].shape[2]:
                self._rooms[number] = _with_room(self._rooms[number][:, :, :start], states.shape[2] + self._ROOM)
            self._rooms[number][:, :, start:end] = states
        self.keys, self.values = (room[:, :, :end] for room in self._rooms)
        return self.keys, self.values


def _with_room(states: Tensor, positions: int) -> Tensor:
    return torch.nn.functional.pad(states, (0, 0, 0, positions))


def growing_cache() -> Cache:
    """An empty cache for a model whose layers attend to everything before them."""
    return Cache(layer_class_to_replicate=_GrowingLayer)


class PrefixCache:
    """Finished sequences and their keys and values, found again by longest common prefix."""

    def __init__(self, limit: int) -> None:
        """`limit` in bytes."""
        self._limit = limit
        self._entries: OrderedDict[tuple[int, ...], tuple[Tensor, KeyValues]] = OrderedDict()
        self._bytes = 0

    def find(self, ids: Sequence[int]) -> KeyValues | None:
        """The longest known prefix of these tokens; None where not even the first is known."""
        prompt = torch.tensor(ids)
        best, length = None, 0
        for known, (tokens, _) in self._entries.items():
            common = _common(prompt, tokens)
            if common > length:
                best, length = known, common
        if best is None:
            return None
        self._entries.move_to_end(best)
        return self._entries[best][1].first(length)

    def add(self, ids: Sequence[int], values: KeyValues) -> None:
        """Remember a sequence; those that it begins with are covered by it and forgotten."""
        key = tuple(ids[: values.length])
        for known in [k for k in self._entries if key[: len(k)] == k]:
            self._forget(known)
        self._entries[key] = (torch.tensor(key), values)
        self._bytes += values.bytes
        while self._bytes > self._limit and self._entries:
            self._forget(next(iter(self._entries)))

    def _forget(self, key: tuple[int, ...]) -> None:
        self._bytes -= self._entries.pop(key)[1].bytes


def _common(a: Tensor, b: Tensor) -> int:
    length = min(len(a), len(b))
    unlike = torch.nonzero(a[:length] != b[:length])
    return int(unlike[0]) if len(unlike) else length
