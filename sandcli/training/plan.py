"""What a training job will do: its rows, batches and size. Needs the tokenizer, not the weights."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sandcli.engines.configs import longest
from sandcli.engines.tokens import load_tokenizer
from sandcli.records import Trajectory
from sandcli.training.batches import Batches, make_batches
from sandcli.training.config import Size, TrainingConfig
from sandcli.training.processes import process_count
from sandcli.training.rows import IGNORED, TrainingRow, prepare


class TrainingPlan(NamedTuple):
    """The rows of a training job, their order, and their size."""

    tokenizer: Any
    rows: list[TrainingRow]
    batches: Batches
    size: Size


def plan_training(config: TrainingConfig, trajectories: Sequence[Trajectory]) -> TrainingPlan:
    """Tokenise the trajectories and cut them into batches. Raises `UsageError` for a model without a chat template."""
    tokenizer = load_tokenizer(config.start, config.trust_code)
    limit = longest(config.start, config.aims.max_length, config.trust_code)
    prepared = prepare(tokenizer, config.preamble, trajectories, limit, config.aims.too_long)
    lengths = [len(row.input_ids) for row in prepared.rows]
    batches = make_batches(lengths, config.aims, config.seed, process_count(), config.compute.device_batch)
    trained = [sum(label != IGNORED for label in row.labels) for row in prepared.rows]
    seen = [index for index in batches.order if index < len(lengths)]
    in_all = sum(lengths[index] for index in seen), sum(trained[index] for index in seen)
    size = Size(len(lengths), sum(lengths), sum(trained), max(lengths, default=0), prepared.too_long, *in_all)
    return TrainingPlan(tokenizer, prepared.rows, batches, size)
