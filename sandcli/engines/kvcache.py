"""A cache of keys and values, for prompts that share a prefix with an earlier sequence.

Agents' prompts grow turn by turn and branch from shared prefixes, and computing prompts is most of the cost on a CPU.
So the keys and values of finished sequences are kept within a memory limit; the least recently used go first.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from sandcli.engines.ragged import KeyValues


class PrefixCache:
    """Keys and values of sequences, found by the longest common prefix."""

    def __init__(self, limit: int) -> None:
        """`limit` in bytes."""
        self._limit = limit
        self._entries: OrderedDict[tuple[int, ...], tuple[Tensor, KeyValues]] = OrderedDict()
        self._bytes = 0

    def find(self, ids: Sequence[int]) -> tuple[KeyValues, int] | None:
        """Return the entry with the longest prefix of these tokens, and its length; None if no entry shares a token."""
        prompt = torch.tensor(ids)
        best, length = None, 0
        for known, (tokens, _) in self._entries.items():
            common = common_prefix(prompt, tokens)
            if common > length:
                best, length = known, common
        if best is None:
            return None
        self._entries.move_to_end(best)
        return self._entries[best][1], length

    def add(self, ids: Sequence[int], values: KeyValues) -> None:
        """Add a sequence, and remove its prefixes, which it covers."""
        key = tuple(ids[: values.length])
        for known in [k for k in self._entries if key[: len(k)] == k]:
            self._forget(known)
        self._entries[key] = (torch.tensor(key), values)
        self._bytes += values.bytes
        while self._bytes > self._limit and self._entries:
            self._forget(next(iter(self._entries)))

    def _forget(self, key: tuple[int, ...]) -> None:
        self._bytes -= self._entries.pop(key)[1].bytes


def common_prefix(a: Tensor, b: Tensor) -> int:
    """Return the length of the longest common prefix."""
    length = min(len(a), len(b))
    unlike = torch.nonzero(a[:length] != b[:length])
    return int(unlike[0]) if len(unlike) else length
