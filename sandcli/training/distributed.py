"""Processes that train together: started here (`--nproc`), or by a launcher such as torchrun.

Under a launcher every process runs `sand` itself. The first one leads: it alone decides what to do, holds the lock and
writes. The others follow: they wait for its training job, take part in it, and end with it.
"""

import codecs
import logging
import multiprocessing
import multiprocessing.connection
import os
import pickle
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from sandcli.errors import Exit, PrerequisiteError, SandError
from sandcli.files import write_atomic
from sandcli.interrupts import Interrupts
from sandcli.progress import Bar, notice
from sandcli.records import Pair, Trajectory
from sandcli.training.config import Hooks, Size, TrainingConfig, TrainingResult
from sandcli.training.processes import PATIENCE, process_count, rank, refuse_srun_tasks

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

T = TypeVar("T")

_LAST_STEP = 600
"""Seconds that processes get for their current step and a checkpoint when they are asked to stop."""


class TrainingJob(NamedTuple):
    """Training on the first `limit` records of the file `data`; `label` is the stage's name.

    Installs no signal handlers: the caller passes `stop`.
    """

    label: str
    config: TrainingConfig
    data: Path
    limit: int | None

    def records(self) -> Sequence[Trajectory | Pair]:
        """The training data."""
        kind: Any = self.config.record
        lines = self.data.read_bytes().removeprefix(codecs.BOM_UTF8)
        found: list[Trajectory | Pair] = msgspec.json.Decoder(kind).decode_lines(lines)
        return found[: self.limit]

    def run(self, stop: Callable[[], bool]) -> TrainingResult:
        """Train in this process, together with the others if there are any. `stop` is asked after each step."""
        from sandcli.training.trainer import fit

        bar = Bar(self.label, 0, 0)
        hooks = Hooks(_report_size, bar.restart, bar.advance, stop)
        if process_count() > 1:
            hooks = hooks._replace(agreed=_from_first)
        if rank() > 0:
            return fit(self.config, self.records(), hooks._replace(sized=lambda size: None))
        with bar.display():
            return fit(self.config, self.records(), hooks)

    def launch(self, processes: int) -> TrainingResult:
        """Train in several processes on this machine. Torch's launcher starts and watches them; they handle signals."""
        from torch.distributed.elastic.multiprocessing import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch

        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
        if sys.platform == "linux":
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all processes are on this machine
        logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # we report it in one line
        with tempfile.TemporaryDirectory() as folder:
            config = LaunchConfig(
                min_nodes=1,
                max_nodes=1,
                nproc_per_node=processes,
                run_id=self.label,
                # The launcher unpickles what it finds here. Anybody could write to a TCP store, only we to this file.
                rdzv_backend="c10d",
                rdzv_configs={"store_type": "file"},
                rdzv_endpoint=str(Path(folder) / "rendezvous"),
                max_restarts=0,
                shutdown_timeout=_LAST_STEP,
            )
            try:
                result: TrainingResult = elastic_launch(config, _process)(self, Path(folder))[0]
            except SignalException:
                return UNFINISHED
            except ChildFailedError as error:
                raise _reported(Path(folder)) or _died(processes, error) from error
        return result


UNFINISHED = TrainingResult([], 0, Size(0, 0, 0, 0, {}), finished=False)
"""The result of a job that was interrupted in other processes."""


def _process(job: TrainingJob, folder: Path) -> TrainingResult:
    """Run in each process that `TrainingJob.launch` starts. If it fails it must exit, or the others wait for it."""
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
    """Exit when the launcher is killed: its lock is gone too, so its processes must stop writing."""
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
    """The processes that a launcher such as torchrun started, or this process alone.

    Every process enters the group before it does anything else:

        with ProcessGroup() as group:
            if group.follows:
                group.follow(stop)
                return
            ...  # the leader decides what to do
            group.share(job)
            job.run(stop)

    A leader that leaves the group without sharing a job, even by an exception, releases the others.
    """

    def __init__(self) -> None:
        """Raises `UsageError` if `srun` started several tasks without torchrun."""
        refuse_srun_tasks()
        self.size = process_count()
        self._shared = False

    @property
    def follows(self) -> bool:
        """Whether another process is the leader."""
        return rank() > 0

    def __enter__(self) -> "ProcessGroup":
        return self

    def __exit__(self, *_: object) -> None:
        """Release the followers if the leader has no job for them."""
        if not self._shared:
            self.share(None)

    def share(self, job: TrainingJob | None) -> TrainingJob | None:
        """Send the leader's job to all processes, and return it in each; None means that there is nothing to do."""
        self._shared = True
        return _from_first(job) if self.size > 1 else job

    def follow(self, stop: Callable[[], bool]) -> None:
        """Wait for the leader's job, and take part in it if there is one."""
        job = self.share(None)
        if job is not None:
            job.run(stop)


def _from_first(value: T) -> T:
    """The first process's value, in all processes."""
    import torch
    from accelerate import PartialState
    from torch.distributed import broadcast_object_list

    PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)  # connects the processes on first use
    box = [value]
    broadcast_object_list(box, src=0)
    return box[0]


def _report_size(size: Size) -> None:
    """Print the size of the training data, before the first step."""
    notice(describe(size))
    for name, why in list(size.too_long.items())[:5]:
        notice(f"  too long: {name}: {why}")
    if len(size.too_long) > 5:
        notice(f"  too long: {len(size.too_long) - 5} more")


def describe(size: Size) -> str:
    """The size of the training data in one line."""
    return (
        f"{size.rows} {size.noun}, {size.tokens:,} tokens per epoch, {size.trained:,} of them with loss; "
        f"the longest has {size.longest:,}"
    )
