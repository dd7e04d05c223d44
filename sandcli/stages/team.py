"""Processes that train together: started here (`--nproc`), or by a launcher such as torchrun or Slurm.

Under a launcher every process is a `sand` of its own. The first one leads: it alone decides what is to be done,
holds the lock and writes; the others follow it into the training run and out of it.
"""

import os
from pathlib import Path
from typing import NamedTuple, TypeVar

from sandcli.errors import Exit, PrerequisiteError, SandError
from sandcli.finetune.recipe import Fitted, Hooks, Size, Spec
from sandcli.progress import Bar, notice
from sandcli.records import Trajectory
from sandcli.stages.interrupts import Interrupts
from sandcli.store import read

T = TypeVar("T")

_PATIENCE = 600
"""Seconds that processes have for their current step and a checkpoint when they are asked to stop."""


class Training(NamedTuple):
    """A training run on the first `limit` trajectories of a file; `label` is its stage."""

    label: str
    spec: Spec
    data: Path
    limit: int | None

    def run(self) -> Fitted:
        """Train in this process, together with the others where there are others."""
        from sandcli.finetune.trainer import fit

        team, bar = Team(), Bar(self.label, 0, 0)
        trajectories = list(read(self.data, Trajectory))[: self.limit]
        with Interrupts(launched=team.size > 1) as interrupts:
            hooks = Hooks(_say, bar.restart, bar.advance, lambda: interrupts.asked)
            if team.size > 1:
                hooks = hooks._replace(agreed=_shared)
            if team.follows:
                return fit(self.spec, trajectories, hooks._replace(sized=lambda size: None))
            with bar.shown():
                return fit(self.spec, trajectories, hooks)

    def launched(self, processes: int) -> Fitted:
        """Train in so many processes of this machine, which torch's own launcher starts and watches."""
        from torch.distributed.elastic.multiprocessing import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch

        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=self.label,
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            max_restarts=0,
            shutdown_timeout=_PATIENCE,
        )
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
        try:
            outcome: Fitted | _Refused = elastic_launch(config, _process)(self)[0]
        except SignalException:
            return UNFINISHED
        except ChildFailedError as error:
            raise _died(processes, error) from error
        if isinstance(outcome, _Refused):
            raise outcome.kind(outcome.what, outcome.fix)
        return outcome


UNFINISHED = Fitted([], 0, Size(0, 0, 0, 0, {}), False)
"""What is known of a training run that was interrupted in other processes."""


class _Refused(NamedTuple):
    """An error for a person, on its way from another process."""

    kind: type[SandError]
    what: str
    fix: str


def _process(training: Training) -> Fitted | _Refused:
    """One of the processes that `Training.launched` started."""
    try:
        fitted = training.run()
    except SandError as error:
        return _Refused(type(error), error.what, error.fix)
    if not fitted.finished:
        os._exit(Exit.INTERRUPTED)  # a launcher that was interrupted itself takes no result any more
    return fitted


def _died(processes: int, error: Exception) -> PrerequisiteError:
    said = str(error).strip().splitlines()
    return PrerequisiteError(
        f"one of {processes} processes that trained together ended: {said[-1] if said else 'without a word'}",
        "see what it printed above; run the same command again to go on from the last checkpoint",
    )


class Team:
    """The processes that a launcher started, or this one alone."""

    def __init__(self) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self._rank = int(os.environ.get("RANK", "0"))
        self._told = False

    @property
    def follows(self) -> bool:
        """Whether another process leads."""
        return self._rank > 0

    def __enter__(self) -> "Team":
        return self

    def __exit__(self, *_: object) -> None:
        """Followers wait to hear what there is to do; where it came to nothing they are let go."""
        if not self._told:
            self.share(None)

    def share(self, training: Training | None) -> Training | None:
        """The leader's training run, to all; none where there is nothing to do."""
        self._told = True
        return _shared(training) if self.size > 1 else training


def _shared(value: T) -> T:
    """What the first process says, in all of them."""
    import torch
    from accelerate import PartialState
    from torch.distributed import broadcast_object_list

    PartialState(cpu=not torch.cuda.is_available())  # joins them, the first time
    box = [value]
    broadcast_object_list(box, src=0)
    return box[0]


def _say(size: Size) -> None:
    """What is trained on, before the first step."""
    notice(
        f"{size.trajectories} trajectories, {size.tokens:,} tokens an epoch, {size.trained:,} of them with loss; "
        f"the longest has {size.longest:,}"
    )
    for name, why in list(size.too_long.items())[:5]:
        notice(f"  too long: {name}: {why}")
    if len(size.too_long) > 5:
        notice(f"  too long: {len(size.too_long) - 5} more")
