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
import time
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
from sandcli.training.nodes import LOST, Nodes, Place
from sandcli.training.processes import PATIENCE, process_count, rank

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

T = TypeVar("T")

_END = "end"
"""A file that tells the processes of this machine that all nodes end."""

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
            hooks = hooks._replace(agreed=_of_any)
        if rank() > 0:
            return fit(self.config, self.records(), hooks._replace(sized=lambda size: None))
        with bar.display():
            return fit(self.config, self.records(), hooks)

    def launch(self, processes: int, nodes: Nodes | None = None) -> TrainingResult:
        """Train in several processes on this machine, or on each of several nodes.

        Torch's launcher starts and watches those of this machine; they handle signals.
        """
        from torch.distributed.elastic.multiprocessing import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch

        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
        if sys.platform == "linux" and nodes is None:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all processes are on this machine
        logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # we report it in one line
        with tempfile.TemporaryDirectory() as name:
            folder, place = Path(name), nodes.watched_by(Path(name) / _END) if nodes else None
            config = LaunchConfig(
                min_nodes=1,
                max_nodes=1,
                nproc_per_node=processes,
                run_id=self.label,
                # The launcher unpickles what it finds here. Anybody could write to a TCP store, only we to this file.
                rdzv_backend="c10d",
                rdzv_configs={"store_type": "file"},
                rdzv_endpoint=str(folder / "rendezvous"),
                local_addr="127.0.0.1",
                max_restarts=0,
                shutdown_timeout=_LAST_STEP,
            )
            try:
                result: TrainingResult = elastic_launch(config, _process)(self, folder, place)[0]
            except SignalException:
                return UNFINISHED
            except ChildFailedError as error:
                if nodes and nodes.problem:
                    raise nodes.problem from error
                if error.get_first_failure()[1].exitcode == Exit.INTERRUPTED:  # on another node
                    return UNFINISHED
                raise _reported(folder) or _died(processes, error) from error
        return result


UNFINISHED = TrainingResult([], 0, Size(0, 0, 0, 0, {}), finished=False)
"""The result of a job that was interrupted in other processes."""


def _process(job: TrainingJob, folder: Path, place: Place | None) -> TrainingResult:
    """Run in each process that `TrainingJob.launch` starts. If it fails it must exit, or the others wait for it."""
    threading.Thread(target=_end_with_launcher, args=(folder / _END,), daemon=True).start()
    if place:
        os.environ.update(_among_all(place))
    try:
        with Interrupts(launched=True) as interrupts:
            result = job.run(lambda: interrupts.asked)
    except SandError as error:
        write_atomic(folder / f"error-{rank():05}", [pickle.dumps((type(error), error.what, error.fix))])
        os._exit(error.exit)
    except Exception:
        if place:
            time.sleep(1.5 * LOST)  # if another node is lost, this process ends here
        raise
    if not result.finished:
        os._exit(Exit.INTERRUPTED)  # a launcher that was interrupted itself no longer takes a result
    return result


def _among_all(place: Place) -> dict[str, str]:
    """The variables by which this process finds those of all nodes; torch's launcher knows only its own."""
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    return {
        "RANK": str(place.node * here + int(os.environ["LOCAL_RANK"])),
        "WORLD_SIZE": str(place.nodes * here),
        "MASTER_ADDR": place.host,
        "MASTER_PORT": str(place.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the store is there
    }


def _end_with_launcher(end: Path) -> None:
    """Exit when all nodes end, or when the launcher is killed: then its lock is gone too, so nobody may write."""
    launcher = multiprocessing.parent_process()
    if launcher is not None:
        while not multiprocessing.connection.wait([launcher.sentinel], 0.5) and not end.exists():
            pass
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


def _of_any(answers: tuple[bool, bool]) -> tuple[bool, bool]:
    """For each question, whether any process answers yes."""
    import torch
    from accelerate import PartialState
    from torch.distributed import ReduceOp, all_reduce

    box = torch.tensor(answers, dtype=torch.int32, device=PartialState().device)
    all_reduce(box, op=ReduceOp.MAX)
    first, second = box.tolist()
    return bool(first), bool(second)


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
