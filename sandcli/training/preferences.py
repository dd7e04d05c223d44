"""Direct preference optimisation (DPO) with TRL's trainer, on rows with masks of their own.

TRL's masks would count every observation as the agent's: they take all that follows the prompt for the completion.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from trl import DPOTrainer
from trl.trainer.utils import pad

from sandcli.errors import Interrupted
from sandcli.files import write_atomic
from sandcli.progress import notice
from sandcli.training.batches import Batches
from sandcli.training.config import Hooks
from sandcli.training.processes import process_count, rank
from sandcli.training.rows import IGNORED, PairRow

Reference = tuple[float, float]
"""The log-probabilities of a pair's chosen and rejected turns under the model that the training starts from."""


class Place(TypedDict):
    """A place in the order of training: a row, and its weight in the batch."""

    row: int
    weight: float


class PairCollator:
    """A pair as tensors: the chosen conversation, then the rejected one. The last row is the empty one."""

    def __init__(self, rows: Sequence[PairRow], pad_token: int) -> None:
        self.reference: list[Reference] = []
        """By row; empty while the reference is being asked."""
        self.rows = [*rows, rows[0].empty()]
        self._pad_token = pad_token

    def __call__(self, places: Sequence[Place]) -> dict[str, Any]:
        """The tensors that TRL's trainer reads, and the pair's weight."""
        (place,) = places
        row = self.rows[place["row"]]
        ids = [torch.tensor(side.input_ids) for side in row]
        masks = [torch.tensor(side.labels).ne(IGNORED).long() for side in row]
        batch = {
            "input_ids": pad(ids, padding_value=self._pad_token),
            "attention_mask": pad([torch.ones_like(row) for row in ids], padding_value=0),
            "completion_mask": pad(masks, padding_value=0),
            "weight": torch.tensor(place["weight"]),
        }
        if self.reference:
            chosen, rejected = self.reference[place["row"]]
            batch |= {"ref_chosen_logps": torch.tensor([chosen]), "ref_rejected_logps": torch.tensor([rejected])}
        return batch


class PreferenceTrainer(DPOTrainer):  # type: ignore[misc]
    """TRL's trainer, which asks the reference once for every pair, and keeps the answers in the file `known`."""

    def __init__(self, rows: Sequence[PairRow], batches: Batches, known: Path, hooks: Hooks, **arguments: Any) -> None:
        self._known, self._hooks = known, hooks
        self._collator = PairCollator(rows, arguments["processing_class"].pad_token_id)
        self._shares = real_shares(batches, len(rows))
        places = Dataset.from_dict({"row": batches.order, "weight": weights(batches, len(rows))})
        super().__init__(data_collator=self._collator, train_dataset=places, **arguments)
        if "ref" in getattr(self.model, "peft_config", ()):
            self.model.delete_adapter("ref")  # TRL's copy of an adapter that is trained further; it has answered

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        """The rows are tokens already, and the collator has them."""
        return dataset

    def _precompute_ref_logps(self, dataset: Any, *_: Any) -> Any:
        """TRL would ask once for every pair of every epoch, and ask again after a kill."""
        if self._known.exists():
            self._collator.reference = msgspec.json.decode(self._known.read_bytes(), type=list[Reference])
            return dataset
        self._collator.reference = self._ask_all()
        if rank() == 0:
            write_atomic(self._known, [msgspec.json.encode(self._collator.reference)])
        return dataset

    def _ask_all(self) -> list[Reference]:
        """Each process asks about its share; all ask equally often, as sharded weights require."""
        count, size = len(self._collator.rows), process_count()
        if rank() == 0:
            notice("asking the reference about every pair")
        self._hooks.planned(math.ceil(count / size), 0)
        found: list[tuple[int, Reference]] = []
        for first in range(0, count, size):
            index = min(first + rank(), count - 1)
            found.append((index, self._ask(index)))
            self._hooks.stepped()
            if self._hooks.agreed((self._hooks.stop(), False))[0]:
                raise Interrupted("prefer")
        return [answer for _, answer in sorted(dict(gather_object(found)).items())]

    def _ask(self, row: int) -> Reference:
        batch = self._prepare_inputs(self._collator([Place(row=row, weight=1.0)]))
        del batch["weight"]
        chosen, rejected = self.compute_ref_log_probs(self.ref_model or self.model, batch)
        return chosen.item(), rejected.item()

    def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **named: Any) -> Any:
        """The loss of one pair, weighted."""
        weight = inputs.pop("weight")
        return super().compute_loss(model, inputs, *arguments, **named) * weight

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The rewards of a step are means over its pairs. TRL counts the empty rows as well, whose rewards are 0."""
        if "loss" in logs:
            share = self._shares[self.state.global_step - 1]
            for name, values in self._metrics["train"].items():
                if name.startswith("rewards/"):
                    values[:] = [value / share for value in values]
        super().log(logs, start_time)


def weights(batches: Batches, rows: int) -> list[float]:
    """The weight of each row in the order of training: a step's loss is the mean over the pairs of its batch.

    The empty row, which fills up a batch, has none.
    """
    width = len(batches.order) // batches.steps
    shares = real_shares(batches, rows)
    return [(index < rows) / shares[place // width] for place, index in enumerate(batches.order)]


def real_shares(batches: Batches, rows: int) -> list[float]:
    """How much of the batch of each step is pairs; the rest is the empty row."""
    width = len(batches.order) // batches.steps
    cut = (batches.order[start : start + width] for start in range(0, len(batches.order), width))
    return [sum(index < rows for index in batch) / width for batch in cut]
