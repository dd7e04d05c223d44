"""Which trajectories each optimiser step uses: a function of the seed, not of the number of devices. Pure."""

import math
import random
from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import NamedTuple

from sandcli.training_settings import TrainingSettings


class Batches(NamedTuple):
    """The order of training.

    `order` holds row indices, batch after batch; an index equal to the number of rows is the empty row, which carries
    no loss and fills up a batch. Each process computes `accumulate` times `device_batch` rows of every batch. `tokens`
    counts the tokens of each step. An epoch takes `epoch` steps.
    """

    order: list[int]
    accumulate: int
    tokens: list[int]
    epoch: int

    @property
    def steps(self) -> int:
        """The number of optimiser steps."""
        return len(self.tokens)


def make_batches(
    lengths: Sequence[int], aims: TrainingSettings, seed: int, processes: int, device_batch: int
) -> Batches:
    """Cut shuffled epochs into batches of `aims.batch_size` rows; the last batch of an epoch is smaller.

    There are `aims.max_steps` batches, or those of `aims.epochs` epochs if that is 0.
    """
    largest = min(aims.batch_size, len(lengths))
    accumulate = math.ceil(largest / (processes * device_batch))
    width = accumulate * processes * device_batch
    order: list[int] = []
    tokens: list[int] = []
    epoch = math.ceil(len(lengths) / aims.batch_size)
    steps = (aims.max_steps or aims.epochs * epoch) if lengths else 0
    for batch in islice(_cut(len(lengths), aims.batch_size, seed), steps):
        # Rows of similar length side by side: devices that compute them at the same time do not wait for each other.
        batch.sort(key=lambda index: lengths[index])
        order += batch + [len(lengths)] * (width - len(batch))
        tokens.append(sum(lengths[index] for index in batch))
    return Batches(order, accumulate, tokens, epoch)


def _cut(rows: int, size: int, seed: int) -> Iterator[list[int]]:
    """Batches without end."""
    for epoch in count():
        shuffled = random.Random(f"{seed}:{epoch}").sample(range(rows), rows)
        for start in range(0, rows, size):
            yield shuffled[start : start + size]
