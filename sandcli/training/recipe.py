"""What a training run is asked for, how it talks to its caller, and what comes of it."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec


class Recipe(NamedTuple):
    """What to aim at; see the [sft] and [train] tables of sand.toml. Batches count trajectories."""

    method: str
    lora_rank: int
    learning_rate: float
    epochs: int
    batch_size: int
    max_length: int
    too_long: str
    seed: int


class Means(NamedTuple):
    """How to get there; see the [trainer] table. Of no influence on what is aimed at."""

    checkpoint_minutes: float = 10.0
    device_batch: int = 1
    shard: bool = False
    report_to: tuple[str, ...] = ()


class Size(NamedTuple):
    """What is trained on: trajectories, and tokens of one epoch. `too_long`: what became of longer ones, by id."""

    trajectories: int
    tokens: int
    trained: int
    longest: int
    too_long: dict[str, str]


def _alone(wishes: tuple[bool, bool]) -> tuple[bool, bool]:
    return wishes


class Hooks(NamedTuple):
    """How a training run talks to its caller.

    `sized` comes before the first step; `planned(total, done)` and `stepped()` count optimiser steps;
    `agreed` makes all processes that train together do what the first one says: whether to stop, and whether to save.
    """

    sized: Callable[[Size], None]
    planned: Callable[[int, int], None]
    stepped: Callable[[], None]
    stop: Callable[[], bool]
    agreed: Callable[[tuple[bool, bool]], tuple[bool, bool]] = _alone


class Logged(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a training log: one optimiser step. `loss` is the mean over the batch's trained tokens.

    `tokens_a_second` counts all tokens of all processes; `memory_gib` is the peak of the first GPU, or what the
    first process takes now where there is none.
    """

    step: int
    epoch: float
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens_a_second: float
    memory_gib: float


class Fitted(NamedTuple):
    """What came of a training run."""

    log: list[Logged]
    steps: int
    size: Size
    finished: bool


class Spec(NamedTuple):
    """A whole training run: from the model in `start`, into `work`; `system` opens every conversation."""

    start: Path
    system: str
    recipe: Recipe
    means: Means
    work: Path
    log: Path
