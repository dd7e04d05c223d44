"""Processes that train together: started here (`--nproc`), or by a launcher such as torchrun.

Under a launcher every process is a `sand` of its own. The first one leads: it alone decides what is to be done,
holds the lock and writes; the others follow it into the training run and out of it.
"""

import logging
import multiprocessing
import multiprocessing.connection
import os
import pickle
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

from sandcli.errors import Exit, PrerequisiteError, SandError
from sandcli.files import write_atomic
from sandcli.interrupts import Interrupts
from sandcli.progress import Bar, notice
from sandcli.records import Trajectory
from sandcli.training.launch import PATIENCE, must_know_each_other, processes, rank
from sandcli.training.recipe import Fitted, Hooks, Size, Spec

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

T = TypeVar("T")

_LAST_STEP = 600
"""Seconds that processes have for their current step and a checkpoint when they are asked to stop."""


class Session(NamedTuple):
    """One training run: on the first `limit` trajectories of a file; `label` is its stage."""

    label: str
    spec: Spec
    data: Path
    limit: int | None

    def run(self) -> Fitted:
        """Train in this process, together with the others where there are others."""
        from sandcli.training.trainer import fit

        together, bar = processes() > 1, Bar(self.label, 0, 0)
        trajectories = msgspec.json.Decoder(Trajectory).decode_lines(self.data.read_bytes())[: self.limit]
        with Interrupts(launched=together) as interrupts:
            hooks = Hooks(_say, bar.restart, bar.advance, lambda: interrupts.asked)
            if together:
                hooks = hooks._replace(agreed=_shared)
            if rank() > 0:
                return fit(self.spec, trajectories, hooks._replace(sized=lambda size: None))
            with bar.display():
                return fit(self.spec, trajectories, hooks)

    def launched(self, count: int) -> Fitted:
        """Train in so many processes of this machine, which torch's own launcher starts and watches."""
        from torch.distributed.elastic.multiprocessing import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch

        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=self.label,
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            max_restarts=0,
            shutdown_timeout=_LAST_STEP,
        )
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
        logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # we say it in a line
        with tempfile.TemporaryDirectory() as folder:
            try:
                fitted: Fitted = elastic_launch(config, _process)(self, Path(folder))[0]
            except SignalException:
                return UNFINISHED
            except ChildFailedError as error:
                raise _refusal(Path(folder)) or _died(count, error) from error
        return fitted


UNFINISHED = Fitted([], 0, Size(0, 0, 0, 0, {}), False)
"""What is known of a training run that was interrupted in other processes."""


def _process(session: Session, folder: Path) -> Fitted:
    """One of the processes that `Session.launched` started. One that fails must end, or the others wait for it."""
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    try:
        fitted = session.run()
    except SandError as error:
        write_atomic(folder / f"refused-{rank():05}", [pickle.dumps((type(error), error.what, error.fix))])
        os._exit(error.exit)
    if not fitted.finished:
        os._exit(Exit.INTERRUPTED)  # a launcher that was interrupted itself takes no result any more
    return fitted


def _end_with_launcher() -> None:
    """With a launcher that was killed its lock is gone too, so that its processes must not go on writing."""
    launcher = multiprocessing.parent_process()
    if launcher is not None:
        multiprocessing.connection.wait([launcher.sentinel])
        os._exit(Exit.INTERRUPTED)


def _refusal(folder: Path) -> SandError | None:
    """What the first of the processes said that had something to say."""
    for path in sorted(folder.glob("refused-?????")):
        kind, what, fix = pickle.loads(path.read_bytes())
        error: SandError = kind(what, fix)
        return error
    return None


def _died(count: int, error: "ChildFailedError") -> PrerequisiteError:
    number, failure = error.get_first_failure()
    how = failure.signal_name() if failure.exitcode < 0 else f"exit code {failure.exitcode}"
    return PrerequisiteError(
        f"process {number} of the {count} that trained together ended with {how}",
        "see what it printed above; run the same command again to go on from the last checkpoint",
    )


class Team:
    """The processes that a launcher started, or this one alone."""

    def __init__(self) -> None:
        must_know_each_other()
        self.size = processes()
        self._told = False

    @property
    def follows(self) -> bool:
        """Whether another process leads."""
        return rank() > 0

    def __enter__(self) -> "Team":
        return self

    def __exit__(self, *_: object) -> None:
        """Followers wait to hear what there is to do; where it came to nothing they are let go."""
        if not self._told:
            self.share(None)

    def share(self, session: Session | None) -> Session | None:
        """The leader's training run, to all; none where there is nothing to do."""
        self._told = True
        return _shared(session) if self.size > 1 else session


def _shared(value: T) -> T:
    """What the first process says, in all of them."""
    import torch
    from accelerate import PartialState
    from torch.distributed import broadcast_object_list

    PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)  # joins them, the first time
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
