"""A training: what is asked for, how it reports to its caller, and its result."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from sandcli.settings import ComputeSettings, TrainingSettings


class TrainingConfig(NamedTuple):
    """One training: from the model in `start`, in the folder `work`; `system` opens every conversation.

    `aims` decides what is learned, `compute` how it is computed. Batches count trajectories.
    """

    start: Path
    system: str
    aims: TrainingSettings
    compute: ComputeSettings
    seed: int
    work: Path
    log: Path


class Size(NamedTuple):
    """The training data: trajectories, and tokens of one epoch. `too_long` says what happened to longer ones, by id."""

    trajectories: int
    tokens: int
    trained: int
    longest: int
    too_long: dict[str, str]


def _alone(wishes: tuple[bool, bool]) -> tuple[bool, bool]:
    return wishes


class Hooks(NamedTuple):
    """How a training reports to its caller.

    `sized` is called before the first step; `planned(total, done)` and `stepped()` count optimiser steps; `stop` is
    asked after each step. `agreed` makes all processes do what the first one wishes: whether to stop and to save.
    """

    sized: Callable[[Size], None]
    planned: Callable[[int, int], None]
    stepped: Callable[[], None]
    stop: Callable[[], bool]
    agreed: Callable[[tuple[bool, bool]], tuple[bool, bool]] = _alone


class LoggedStep(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the training log: one optimiser step. `loss` is the mean over the trained tokens of the batch.

    `tokens_a_second` counts the tokens of all processes. `memory_gib` is the peak of the first GPU, or what the first
    process uses now if there is no GPU.
    """

    step: int
    epoch: float
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens_a_second: float
    memory_gib: float


class TrainingResult(NamedTuple):
    """The result of a training. `finished` is false if it was stopped."""

    log: list[LoggedStep]
    steps: int
    size: Size
    finished: bool
