"""Checkpoints: which one a training goes on from, and what is kept of them when it goes wrong."""

import contextlib
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError

from sandcli.errors import PrerequisiteError, SandError
from sandcli.finetune.recipe import Logged

COMPLETE = "complete"
"""A checkpoint without this file was being written when the process died."""


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written whole; unfinished ones are deleted."""
    found = sorted(folder.glob("checkpoint-*"), key=step_of)
    for path in found:
        if not (path / COMPLETE).exists():
            shutil.rmtree(path, ignore_errors=True)
    whole = [path for path in found if path.exists()]
    return whole[-1] if whole else None


def step_of(checkpoint: Path | None) -> int:
    """The optimiser steps that were done."""
    return int(checkpoint.name.split("-")[1]) if checkpoint else 0


def must_be_readable(checkpoint: Path, sharded: bool) -> None:
    """Raise `PrerequisiteError` where the weights were spread over processes, and now are not, or the other way."""
    before = any(checkpoint.glob("pytorch_model_fsdp*"))
    if before != sharded:
        then = "with trainer.shard and several GPUs" if before else "without trainer.shard"
        raise PrerequisiteError(
            f"{checkpoint} was written {then}, and can only be gone on from so",
            "train as before, or throw it away and begin anew with --force",
        )


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
        if not any(sign in str(error) for sign in ("No space left", "File too large", "file write failed")):
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
