"""Processes that train together: started here (`--nproc`), or by a launcher such as torchrun.

Under a launcher every process runs `sand` itself. The first one leads: it alone decides what to do, holds the lock and
writes. The others follow it into the training and out of it.
"""

import logging
import multiprocessing
import multiprocessing.connection
import os
import pickle
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

from sandcli.errors import Exit, PrerequisiteError, SandError
from sandcli.files import write_atomic
from sandcli.interrupts import Interrupts
from sandcli.progress import Bar, notice
from sandcli.records import Trajectory
from sandcli.training.config import Hooks, Size, TrainingConfig, TrainingResult
from sandcli.training.processes import PATIENCE, process_count, rank, refuse_srun_tasks

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

T = TypeVar("T")

_LAST_STEP = 600
"""Seconds that processes get for their current step and a checkpoint when they are asked to stop."""


class TrainingJob(NamedTuple):
    """One training, on the first `limit` trajectories of the file `data`; `label` is its stage."""

    label: str
    config: TrainingConfig
    data: Path
    limit: int | None

    def trajectories(self) -> list[Trajectory]:
        """What it trains on."""
        return msgspec.json.Decoder(Trajectory).decode_lines(self.data.read_bytes())[: self.limit]

    def run(self, stop: Callable[[], bool]) -> TrainingResult:
        """Train in this process, together with the others if there are any; `stop` is asked after each step."""
        from sandcli.training.trainer import fit

        bar = Bar(self.label, 0, 0)
        hooks = Hooks(_report_size, bar.restart, bar.advance, stop)
        if process_count() > 1:
            hooks = hooks._replace(agreed=_from_first)
        if rank() > 0:
            return fit(self.config, self.trajectories(), hooks._replace(sized=lambda size: None))
        with bar.display():
            return fit(self.config, self.trajectories(), hooks)

    def launch(self, processes: int) -> TrainingResult:
        """Train in several processes of this machine, which torch's own launcher starts and watches."""
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
            shutdown_timeout=_LAST_STEP,
        )
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
        logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # we report it in one line
        with tempfile.TemporaryDirectory() as folder:
            try:
                result: TrainingResult = elastic_launch(config, _process)(self, Path(folder))[0]
            except SignalException:
                return UNFINISHED
            except ChildFailedError as error:
                raise _reported(Path(folder)) or _died(processes, error) from error
        return result


UNFINISHED = TrainingResult([], 0, Size(0, 0, 0, 0, {}), finished=False)
"""What is known of a training that was interrupted in other processes."""


def _process(job: TrainingJob, folder: Path) -> TrainingResult:
    """One of the processes that `TrainingJob.launch` started. If it fails it must end, or the others wait for it."""
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    try:
        with Interrupts(launched=True) as interrupts:
            result = job.run(lambda: interrupts.asked)
    except SandError as error:
        write_atomic(folder / f"error-{rank():05}", [pickle.dumps((type(error), error.what, error.fix))])
        os._exit(error.exit)
    if not result.finished:
        os._exit(Exit.INTERRUPTED)  # a launcher that was interrupted itself no longer takes a result
    return result


def _end_with_launcher() -> None:
    """End when the launcher is killed: its lock is gone too, so its processes must not go on writing."""
    launcher = multiprocessing.parent_process()
    if launcher is not None:
        multiprocessing.connection.wait([launcher.sentinel])
        os._exit(Exit.INTERRUPTED)


def _reported(folder: Path) -> SandError | None:
    """The error of the first process that reported one."""
    for path in sorted(folder.glob("error-?????")):
        kind, what, fix = pickle.loads(path.read_bytes())
        error: SandError = kind(what, fix)
        return error
    return None


def _died(count: int, error: "ChildFailedError") -> PrerequisiteError:
    number, failure = error.get_first_failure()
    how = failure.signal_name() if failure.exitcode < 0 else f"exit code {failure.exitcode}"
    return PrerequisiteError(
        f"process {number} of the {count} that trained together ended with {how}",
        "see its output above; run the same command again to resume from the last checkpoint",
    )


class ProcessGroup:
    """The processes that a launcher started, or this one alone. A context manager around everything a stage does."""

    def __init__(self) -> None:
        """Raises `UsageError` if `srun` started several tasks without torchrun."""
        refuse_srun_tasks()
        self.size = process_count()
        self._shared = False

    @property
    def follows(self) -> bool:
        """Whether another process leads."""
        return rank() > 0

    def __enter__(self) -> "ProcessGroup":
        return self

    def __exit__(self, *_: object) -> None:
        """Followers wait for the leader's job; if there is none, let them go."""
        if not self._shared:
            self.share(None)

    def share(self, job: TrainingJob | None) -> TrainingJob | None:
        """The leader's job, in all processes; None if there is nothing to do."""
        self._shared = True
        return _from_first(job) if self.size > 1 else job

    def follow(self, stop: Callable[[], bool]) -> None:
        """Wait for the leader's job, and take part in it if there is one."""
        job = self.share(None)
        if job is not None:
            job.run(stop)


def _from_first(value: T) -> T:
    """The first process's value, in all of them."""
    import torch
    from accelerate import PartialState
    from torch.distributed import broadcast_object_list

    PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)  # connects them, the first time
    box = [value]
    broadcast_object_list(box, src=0)
    return box[0]


def _report_size(size: Size) -> None:
    """Print what is trained on, before the first step."""
    notice(describe(size))
    for name, why in list(size.too_long.items())[:5]:
        notice(f"  too long: {name}: {why}")
    if len(size.too_long) > 5:
        notice(f"  too long: {len(size.too_long) - 5} more")


def describe(size: Size) -> str:
    """The training data in one line."""
    return (
        f"{size.trajectories} trajectories, {size.tokens:,} tokens per epoch, {size.trained:,} of them with loss; "
        f"the longest has {size.longest:,}"
    )
