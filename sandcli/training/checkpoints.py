"""Checkpoints: which ones are complete, and from which one a training job resumes."""

import shutil
from pathlib import Path

from sandcli.errors import PrerequisiteError
from sandcli.files import fsync_path

COMPLETE = "complete"
"""A checkpoint without this file was being written when the process died."""


def complete_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints, oldest first."""
    return [path for path in _checkpoints(folder) if (path / COMPLETE).exists()]


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint. Incomplete ones are deleted."""
    complete = complete_checkpoints(folder)
    for path in set(_checkpoints(folder)) - set(complete):
        shutil.rmtree(path, ignore_errors=True)
    return complete[-1] if complete else None


def _checkpoints(folder: Path) -> list[Path]:
    """All of them, oldest first. A folder that somebody renamed, such as `checkpoint-old`, is none."""
    return sorted((path for path in folder.glob("checkpoint-*") if path.name.split("-", 1)[1].isdecimal()), key=step_of)


def step_of(checkpoint: Path | None) -> int:
    """The number of optimiser steps that a checkpoint holds."""
    return int(checkpoint.name.split("-")[1]) if checkpoint else 0


def fsync_all(folder: Path) -> None:
    """Make everything that was written into a folder survive a power failure."""
    for path in [*folder.rglob("*"), folder]:
        fsync_path(path)


def refuse_other_sharding(checkpoint: Path, sharded: bool) -> None:
    """Raise `PrerequisiteError` if weights are spread over processes in the checkpoint only, or in this job only."""
    before = any(checkpoint.glob("pytorch_model_fsdp*"))
    if before != sharded:
        how = "with trainer.shard on several GPUs" if before else "without trainer.shard"
        raise PrerequisiteError(
            f"{checkpoint} was written {how}, and can only be resumed in the same way",
            "train as before, or start again with --force",
        )
