"""Where this process stands among those that train together, by the variables that torchrun sets."""

import os
from datetime import timedelta

from sandcli.errors import UsageError

PATIENCE = timedelta(hours=2)
"""How long processes wait for one another: the first one may be fetching a model, or writing a checkpoint."""


def processes() -> int:
    """How many there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this one; 0 leads."""
    return int(os.environ.get("RANK", "0"))


def must_know_each_other() -> None:
    """Raise `UsageError` where `srun` started several tasks, which do not know that they belong together."""
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks > 1 and "WORLD_SIZE" not in os.environ:
        raise UsageError(
            f"srun started {tasks} tasks, and each would train alone",
            "start one task a node, and in it torchrun, or on one node sand with --nproc",
        )
