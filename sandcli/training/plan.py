"""What a training job will do: its rows, batches and size. Needs the tokenizer, not the weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sandcli.engines.adapters import weights_of
from sandcli.engines.tokens import context_length, load_tokenizer
from sandcli.records import Trajectory
from sandcli.training.batches import Batches, make_batches
from sandcli.training.config import Size, TrainingConfig
from sandcli.training.processes import process_count
from sandcli.training.rows import IGNORED, Prepared, TrainingRow, prepare


class TrainingPlan(NamedTuple):
    """The rows of a training job, their order, and their size."""

    tokenizer: Any
    rows: list[TrainingRow]
    batches: Batches
    size: Size


def plan_training(config: TrainingConfig, trajectories: Sequence[Trajectory]) -> TrainingPlan:
    """Tokenise the trajectories and cut them into batches. Raises `UsageError` for a model without a chat template."""
    tokenizer = load_tokenizer(config.start)
    limit = longest(config.start, config.aims.max_length)
    prepared = prepare(tokenizer, config.system, trajectories, limit, config.aims.too_long)
    lengths = [len(row.input_ids) for row in prepared.rows]
    batches = Batches([], 0, 0, [])
    if lengths:
        batches = make_batches(lengths, config.aims, config.seed, process_count(), config.compute.device_batch)
    return TrainingPlan(tokenizer, prepared.rows, batches, _size(prepared))


def longest(start: Path, wanted: int) -> int:
    """The longest trajectory that a model can be trained on, in tokens; `wanted` may limit it further."""
    from transformers import AutoConfig

    return context_length(AutoConfig.from_pretrained(weights_of(start)), wanted)


def _size(prepared: Prepared) -> Size:
    lengths = [len(row.input_ids) for row in prepared.rows]
    trained = sum(label != IGNORED for row in prepared.rows for label in row.labels)
    return Size(len(lengths), sum(lengths), trained, max(lengths, default=0), prepared.too_long)
