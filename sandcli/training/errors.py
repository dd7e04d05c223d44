"""What can go wrong while a model is trained, in words that help, and what is kept then."""

import contextlib
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError

from sandcli.errors import PrerequisiteError, SandError
from sandcli.training.checkpoints import last_checkpoint, step_of
from sandcli.training.recipe import Logged

_FULL = "No space left", "File too large", "Disk quota exceeded", "file write failed"
"""How the system, and libraries in its place, say that a disk is full."""


@contextlib.contextmanager
def told(work: Path) -> Iterator[None]:
    """A full disk or GPU, which libraries tell in words of their own, becomes one line; no torn checkpoint is left."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise PrerequisiteError(
            f"the GPU's memory is full: {str(error).splitlines()[0]}",
            "lower trainer.device_batch or max_length, take method lora, or spread the weights: trainer.shard, --nproc",
        ) from error
    except (OSError, SafetensorError, RuntimeError) as error:
        if not any(sign in str(error) for sign in _FULL):
            raise
        kept = last_checkpoint(work / "checkpoints")
        raise PrerequisiteError(
            f"{work} could not be written to: {str(error).splitlines()[0]}",
            f"free some space, then run the same command again: it goes on from step {step_of(kept)}",
        ) from error


def is_broken(entry: Logged) -> bool:
    """Whether a step spoiled the weights, or found them spoiled."""
    return not (math.isfinite(entry.loss) and math.isfinite(entry.gradient_norm))


def refuse_broken(entry: Logged, checkpoints: Path) -> None:
    """Raise `SandError` for a step whose loss or gradient is no number, and keep the last good checkpoint."""
    if not is_broken(entry):
        return
    what = "gradient" if math.isfinite(entry.loss) else "loss"
    if what == "loss":  # what was saved just before holds the very weights that came to this
        shutil.rmtree(checkpoints / f"checkpoint-{entry.step - 1}", ignore_errors=True)
    kept = last_checkpoint(checkpoints)
    where = f"the checkpoint of step {step_of(kept)} is kept in {kept}" if kept else "there was no checkpoint before"
    raise SandError(
        f"the {what} is not a number at step {entry.step}; {where}",
        "lower learning_rate and train again with --force",
    )
