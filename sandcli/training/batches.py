"""Which trajectories each optimiser step uses: a function of the seed, not of the number of devices. Pure."""

import math
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sandcli.training_settings import TrainingSettings


class Batches(NamedTuple):
    """The order of training.

    `order` holds row indices, batch after batch; an index equal to the number of rows is the empty row, which carries
    no loss and fills up a batch. Each process computes `accumulate` times `device_batch` rows of every batch. `tokens`
    counts the tokens of each step.
    """

    order: list[int]
    accumulate: int
    tokens: list[int]

    @property
    def steps(self) -> int:
        """The number of optimiser steps."""
        return len(self.tokens)


def make_batches(
    lengths: Sequence[int], aims: TrainingSettings, seed: int, processes: int, device_batch: int
) -> Batches:
    """Cut shuffled epochs into batches of `aims.batch_size` rows; the last batch of an epoch is smaller."""
    largest = min(aims.batch_size, len(lengths))
    accumulate = math.ceil(largest / (processes * device_batch))
    width = accumulate * processes * device_batch
    order: list[int] = []
    tokens: list[int] = []
    for batch in _cut(len(lengths), aims, seed):
        # Rows of similar length side by side: devices that compute them at the same time do not wait for each other.
        batch.sort(key=lambda index: lengths[index])
        order += batch + [len(lengths)] * (width - len(batch))
        tokens.append(sum(lengths[index] for index in batch))
    return Batches(order, accumulate, tokens)


def _cut(rows: int, aims: TrainingSettings, seed: int) -> Iterator[list[int]]:
    for epoch in range(aims.epochs):
        shuffled = random.Random(f"{seed}:{epoch}").sample(range(rows), rows)
        for start in range(0, rows, aims.batch_size):
            yield shuffled[start : start + aims.batch_size]
