"""What a training job will do: its rows, batches and size. Needs the tokenizer, not the weights."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sandcli.engines.configs import longest
from sandcli.engines.tokens import load_tokenizer
from sandcli.errors import UsageError
from sandcli.records import Pair, Trajectory
from sandcli.training.batches import Batches, make_batches
from sandcli.training.config import NOUNS, Size, TrainingConfig
from sandcli.training.processes import process_count
from sandcli.training.rows import PairRow, TrainingRow, prepare


class TrainingPlan(NamedTuple):
    """The rows of a training job, their order, and their size."""

    tokenizer: Any
    rows: Sequence[TrainingRow] | Sequence[PairRow]
    batches: Batches
    size: Size

    def must_hold_rows(self) -> None:
        """Raise `UsageError` if there is nothing to train on: it may all be too long."""
        if self.rows:
            return
        why = next((f"; {name}: {why}" for name, why in self.size.too_long.items()), "")
        raise UsageError(
            f"there are no {self.size.noun} to train on{why}",
            "collect or explore more, raise max_length, or use a shorter preamble (agent.preamble)",
        )


def plan_training(config: TrainingConfig, records: Sequence[Trajectory | Pair]) -> TrainingPlan:
    """Tokenise trajectories or pairs, and cut them into batches. Raises `UsageError` without a chat template."""
    tokenizer = load_tokenizer(config.start, config.trust_code)
    limit = longest(config.start, config.aims.max_length, config.trust_code)
    prepared = prepare(tokenizer, config.preamble, records, limit, config.aims.too_long)
    lengths = [row.tokens for row in prepared.rows]
    batches = make_batches(lengths, config.aims, config.seed, process_count(), config.compute.device_batch)
    trained = [row.trained for row in prepared.rows]
    seen = [index for index in batches.order if index < len(lengths)]
    in_all = sum(lengths[index] for index in seen), sum(trained[index] for index in seen)
    longest_row = max((row.longest for row in prepared.rows), default=0)
    size = Size(len(lengths), sum(lengths), sum(trained), longest_row, prepared.too_long, *in_all, NOUNS[config.record])
    return TrainingPlan(tokenizer, prepared.rows, batches, size)
