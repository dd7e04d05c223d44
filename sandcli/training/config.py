"""The configuration of a training job, the hooks through which it reports to its caller, and its result."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from sandcli.messages import Message
from sandcli.records import Pair, Trajectory
from sandcli.training_settings import ComputeSettings, TrainingSettings

REFERENCE = "reference.json"
"""The file in `TrainingConfig.work` with what the reference said of every pair."""


class TrainingConfig(NamedTuple):
    """What to train: the model in `start`, with `preamble` at the head of every conversation.

    `aims` says what to learn, `compute` how to compute it. Checkpoints and the result go into the folder `work`.
    A batch is counted in records. `trust_code`: code that comes with the model may be run. `record` is what it learns
    from: trajectories (SFT) or preference pairs (DPO).
    """

    start: Path
    preamble: Sequence[Message]
    aims: TrainingSettings
    compute: ComputeSettings
    seed: int
    work: Path
    log: Path
    trust_code: bool = False
    record: type[Trajectory] | type[Pair] = Trajectory


NOUNS: Mapping[type[Trajectory] | type[Pair], str] = {Trajectory: "trajectories", Pair: "pairs"}
"""What many records are called."""


class Size(NamedTuple):
    """The training data: how many `rows` of what, and the tokens of one epoch, in all and `trained` (with loss).

    `all_tokens` and `all_trained` are those of all optimiser steps together. `longest` is the length of the longest
    conversation. `too_long` says what happened to longer ones than allowed, by id.
    """

    rows: int
    tokens: int
    trained: int
    longest: int
    too_long: dict[str, str]
    all_tokens: int = 0
    all_trained: int = 0
    noun: str = "trajectories"


def _alone(answers: tuple[bool, bool]) -> tuple[bool, bool]:
    return answers


class Hooks(NamedTuple):
    """How a training job reports to its caller.

    `sized` is called before the first step; `planned(total, done)` and `stepped()` count optimiser steps; `stop` is
    asked after each step. `agreed` tells all processes whether any of them answers yes to two questions: stop? save?
    """

    sized: Callable[[Size], None]
    planned: Callable[[int, int], None]
    stepped: Callable[[], None]
    stop: Callable[[], bool]
    agreed: Callable[[tuple[bool, bool]], tuple[bool, bool]] = _alone


class LoggedStep(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the training log: an optimiser step.

    `loss` is the mean over the trained tokens of the batch, or over its pairs.

    `tokens_a_second` counts the tokens of all processes. `memory_gib` is the peak of the first GPU, or what the first
    process uses at that moment if there is no GPU.

    Pairs alone have the last two. The reward of a side is `beta` times how much more probable it is (log-probability)
    than under the reference. `margin` is the chosen side's reward minus that of the rejected one, `accuracy` the share
    of the pairs in which it is positive.
    """

    step: int
    epoch: float
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens_a_second: float
    memory_gib: float
    accuracy: float | None = None
    margin: float | None = None


class TrainingResult(NamedTuple):
    """The result of a training job. `finished` is false if the job was stopped."""

    log: list[LoggedStep]
    steps: int
    size: Size
    finished: bool
