"""Failures during training: explained, and which checkpoint is kept."""

import contextlib
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError

from sandcli.errors import PrerequisiteError, SandError
from sandcli.training.checkpoints import last_checkpoint, step_of
from sandcli.training.config import LoggedStep

_DISK_FULL = "No space left", "File too large", "Disk quota exceeded", "file write failed"
"""How the system, and libraries, report a full disk."""


@contextlib.contextmanager
def explained(work: Path) -> Iterator[None]:
    """Turn a library's report of a full disk or GPU into an error with a fix. No incomplete checkpoint is left."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise PrerequisiteError(
            f"the GPU's memory is full: {str(error).splitlines()[0]}",
            "lower trainer.device_batch or max_length, use method lora, or spread the weights: trainer.shard, --nproc",
        ) from error
    except (OSError, SafetensorError, RuntimeError) as error:
        if not any(sign in str(error) for sign in _DISK_FULL):
            raise
        kept = last_checkpoint(work / "checkpoints")
        raise PrerequisiteError(
            f"{work} could not be written to: {str(error).splitlines()[0]}",
            f"free some space, then run the same command again: it resumes from step {step_of(kept)}",
        ) from error


def is_broken(step: LoggedStep) -> bool:
    """Whether the loss or the gradient of a step is not finite."""
    return not (math.isfinite(step.loss) and math.isfinite(step.gradient_norm))


def refuse_broken(step: LoggedStep, checkpoints: Path) -> None:
    """Raise `SandError` if the loss or gradient of a step is not a number. The last good checkpoint is kept."""
    if not is_broken(step):
        return
    what = "gradient" if math.isfinite(step.loss) else "loss"
    if what == "loss":  # the checkpoint of the step before holds the weights that led to this loss
        shutil.rmtree(checkpoints / f"checkpoint-{step.step - 1}", ignore_errors=True)
    kept = last_checkpoint(checkpoints)
    where = f"the checkpoint of step {step_of(kept)} is kept in {kept}" if kept else "there was no checkpoint before"
    raise SandError(
        f"the {what} is not a number at step {step.step}; {where}",
        "lower learning_rate and train again with --force",
    )
