"""Keys and values of token sequences that were computed before, for prompts that begin alike.

Agents' prompts grow turn by turn and branch from shared prefixes, and on a CPU computing the prompt is nearly the
whole cost. So the keys and values of finished sequences are kept, least recently used out first, within a
bound on memory.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from sandcli.engines.ragged import KeyValues


class PrefixCache:
    """Sequences and their keys and values, found again by longest common prefix."""

    def __init__(self, limit: int) -> None:
        """`limit` in bytes."""
        self._limit = limit
        self._entries: OrderedDict[tuple[int, ...], tuple[Tensor, KeyValues]] = OrderedDict()
        self._bytes = 0

    def find(self, ids: Sequence[int]) -> tuple[KeyValues, int] | None:
        """What knows the longest prefix of these tokens, and its length; None where not even the first is known."""
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


def common_prefix(a: Tensor, b: Tensor) -> int:
    """How many tokens two sequences begin with alike."""
    length = min(len(a), len(b))
    unlike = torch.nonzero(a[:length] != b[:length])
    return int(unlike[0]) if len(unlike) else length
