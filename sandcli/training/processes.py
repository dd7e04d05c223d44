"""The rank of this process among those that train together, from the variables that torchrun sets."""

import os
from datetime import timedelta
from typing import NamedTuple

from sandcli.errors import UsageError

PATIENCE = timedelta(hours=2)
"""How long processes wait for one another: the first one may be downloading a model or writing a checkpoint."""


def process_count() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process; 0 leads."""
    return int(os.environ.get("RANK", "0"))


class Processes(NamedTuple):
    """How many processes train, and the reason."""

    number: int
    why: str


def processes_for(launched: int, wanted: int, batch: int) -> Processes:
    """The processes that a launcher started; or as many as are set; or one for each GPU, at most one a trajectory."""
    import torch

    if launched > 1:
        return Processes(launched, "started by a launcher")
    if wanted:
        return Processes(wanted, "as set")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return Processes(max(1, min(gpus, batch)), "one for each GPU" if gpus else "there is no GPU")


def refuse_srun_tasks() -> None:
    """Raise `UsageError` if `srun` started several tasks, which would not train together."""
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks > 1 and "WORLD_SIZE" not in os.environ:
        raise UsageError(
            f"srun started {tasks} tasks, and each of them would train alone",
            "start one task on each node, and use --nodes and --first-node",
        )
