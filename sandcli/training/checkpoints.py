"""Checkpoints: which of them are whole, and which one a training goes on from."""

import os
import shutil
from pathlib import Path

from sandcli.errors import PrerequisiteError

COMPLETE = "complete"
"""A checkpoint without this file was being written when the process died."""


def complete(folder: Path) -> list[Path]:
    """The checkpoints that were written whole, oldest first."""
    return [path for path in sorted(folder.glob("checkpoint-*"), key=step_of) if (path / COMPLETE).exists()]


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written whole; unfinished ones are deleted."""
    whole = complete(folder)
    for path in set(folder.glob("checkpoint-*")) - set(whole):
        shutil.rmtree(path, ignore_errors=True)
    return whole[-1] if whole else None


def step_of(checkpoint: Path | None) -> int:
    """The optimiser steps that were done."""
    return int(checkpoint.name.split("-")[1]) if checkpoint else 0


def settle(folder: Path) -> None:
    """Make all that was written into a folder survive a power cut."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def must_be_readable(checkpoint: Path, sharded: bool) -> None:
    """Raise `PrerequisiteError` where the weights were spread over processes, and now are not, or the other way."""
    before = any(checkpoint.glob("pytorch_model_fsdp*"))
    if before != sharded:
        then = "with trainer.shard and several GPUs" if before else "without trainer.shard"
        raise PrerequisiteError(
            f"{checkpoint} was written {then}, and can only be gone on from so",
            "train as before, or throw it away and begin anew with --force",
        )
