"""Which trajectories each optimiser step sees: a function of the seed alone, not of the number of devices. Pure."""

import math
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sandcli.training.recipe import Recipe


class Batches(NamedTuple):
    """The order of training.

    `order` holds indices of rows, all batches one after the other; an index equal to the number of rows is the
    empty row, which carries no loss and makes the batch divisible. Each of `processes` computes `accumulate`
    times `device_batch` of a batch's rows. `tokens` counts those of each step.
    """

    order: list[int]
    accumulate: int
    steps: int
    tokens: list[int]


def batched(lengths: Sequence[int], recipe: Recipe, processes: int, device_batch: int) -> Batches:
    """Cut shuffled epochs into batches of `recipe.batch_size` rows, the last of an epoch smaller."""
    most = min(recipe.batch_size, len(lengths))
    accumulate = math.ceil(most / (processes * device_batch))
    width = accumulate * processes * device_batch
    order: list[int] = []
    tokens: list[int] = []
    for batch in _cut(len(lengths), recipe):
        # Of equal length side by side: devices that compute them at the same time do not wait for each other.
        batch.sort(key=lambda index: lengths[index])
        order += batch + [len(lengths)] * (width - len(batch))
        tokens.append(sum(lengths[index] for index in batch))
    return Batches(order, accumulate, len(tokens), tokens)


def _cut(rows: int, recipe: Recipe) -> Iterator[list[int]]:
    for epoch in range(recipe.epochs):
        shuffled = random.Random(f"{recipe.seed}:{epoch}").sample(range(rows), rows)
        for start in range(0, rows, recipe.batch_size):
            yield shuffled[start : start + recipe.batch_size]
