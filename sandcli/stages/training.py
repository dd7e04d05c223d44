"""What all trainings share: one unit that fine-tunes a model, and resumes from its last checkpoint."""

import secrets
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from statistics import median
from typing import NamedTuple

from sandcli.core import estimates
from sandcli.core.manifest import Spent, versions
from sandcli.core.stage import Metrics, Stage, State, Unit
from sandcli.engines.base import Model
from sandcli.errors import Interrupted, PrerequisiteError, UsageError
from sandcli.fields import values_with
from sandcli.files import write_atomic
from sandcli.messages import Message
from sandcli.models import fingerprint, require_package
from sandcli.progress import notice
from sandcli.records import Key, Pair, Trajectory
from sandcli.stages.inputs import must_hold
from sandcli.tables import Effect
from sandcli.training.checkpoints import complete_checkpoints
from sandcli.training.config import NOUNS, LoggedStep, TrainingConfig, TrainingResult
from sandcli.training.distributed import ProcessGroup, TrainingJob, describe
from sandcli.training.nodes import Nodes
from sandcli.training.processes import Processes, process_count, processes_for, refuse_srun_tasks
from sandcli.training_settings import ComputeSettings, TrainingSettings

_MARK = "mark"
"""A file in the journal by which a node knows that it is the one of the first node."""


class Trained(NamedTuple):
    """The result of the only unit."""

    result: TrainingResult

    @property
    def key(self) -> Key:
        """The only one."""
        return ("model",)


class TrainingStage(Stage[Path, Trained]):
    """One unit: a model is fine-tuned on a file of records."""

    prompts = ("preamble",)
    own_progress = True
    can_use_cluster = False
    record: type[Trajectory] | type[Pair] = Trajectory
    _group: ProcessGroup
    _nodes: Nodes | None = None

    @property
    @abstractmethod
    def aims(self) -> TrainingSettings:
        """The settings of this training."""

    @property
    def compute(self) -> ComputeSettings:
        """[trainer]."""
        return self.context.settings.trainer

    @property
    def preamble(self) -> Sequence[Message]:
        """What comes before every conversation."""
        return self.context.preamble

    @abstractmethod
    def start(self) -> Model:
        """The model it starts from."""

    @abstractmethod
    def data(self) -> Path:
        """The file it trains on."""

    def reads(self) -> tuple[Path, ...]:
        """The data."""
        return (self.data(),)

    def models(self) -> dict[str, Model]:
        """The model it starts from."""
        return {"start": self.start()}

    def model(self) -> None:
        """None: no engine is opened."""

    def depends_on(self) -> dict[str, str]:
        """The data as a whole, and how much of it is used."""
        return {"data": fingerprint(self.data()), "limit": str(self.limit)}

    def units(self) -> list[Unit[Path]]:
        """The model."""
        return [Unit(("model",), self.data(), ())]

    def binds(self) -> bool:
        """Whether there is a checkpoint: finishing it with other settings would mix two trainings."""
        return bool(complete_checkpoints(self.artifact.journal / "checkpoints"))

    @contextmanager
    def process_group(self, stop: Callable[[], bool]) -> Iterator[bool]:
        """The first of several nodes, or under torchrun the first process, leads; the others follow it."""
        self._group = ProcessGroup()
        if self.compute.nodes > 1:
            self._require_packages()
            with Nodes(self.name, self.compute.nodes, self.compute.first_node, stop) as self._nodes:
                self._nodes.agree(self._agreed())
                if not self._nodes.leads and (mark := self._nodes.await_begin()):
                    self._follow(self._nodes, mark)
                yield not self._nodes.leads
            return
        refuse_srun_tasks()
        with self._group:
            if self._group.follows:
                self._group.follow(stop)
            yield self._group.follows

    def _agreed(self) -> dict[str, str]:
        """What must be the same on all nodes."""
        identity, compute = self.identity(), values_with(self.context.settings, ("trainer",), Effect.COMPUTE)
        command = {"the command": f"sand {self.name} --run {self.run.root.absolute()}"}
        processes = {"the number of processes": str(self._processes().number)}
        parts = (command, versions(), identity.settings, identity.inputs, identity.scope, compute, processes)
        return dict(chain.from_iterable(part.items() for part in parts))

    def _follow(self, nodes: Nodes, mark: str) -> None:
        """Take part in what the first node trains. Raises `PrerequisiteError` if this one does not see its folder."""
        file = self.artifact.journal / _MARK
        if not file.exists() or file.read_text() != mark:
            raise PrerequisiteError(
                f"{self.artifact.journal} is not there, or is another one than on the first node",
                "put the run on a file system that all nodes share, under the same path",
            )
        if not self._job().launch(self._processes().number, nodes).finished:
            raise Interrupted(self.name)

    def _require_packages(self) -> None:
        for package in ("torch", "trl", "peft"):
            require_package(package, "training")

    def check(self, state: State) -> None:
        """Raise `PrerequisiteError` if training's packages are not installed.

        Raise `UsageError` for empty data, or more processes than a batch has records.
        """
        self._require_packages()
        must_hold(self.data(), self.record, self.fix_empty())
        count = self._processes().number * self.compute.nodes
        if count > self.aims.batch_size:
            raise UsageError(
                f"{count} processes cannot share batches of {self.aims.batch_size} {NOUNS[self.record]}",
                f"start {self.aims.batch_size} or fewer, or raise {self.name}.batch_size",
            )

    def _processes(self) -> Processes:
        return processes_for(process_count(), self.compute.nproc, self.aims.batch_size)

    @abstractmethod
    def fix_empty(self) -> str:
        """What to do if the data is empty."""

    async def step(self, unit: Unit[Path], earlier: Trained | None) -> Trained:
        """Train: in processes that are started now, with those that a launcher started, or alone."""
        processes = self._processes()
        notice(f"training {self.aims.method} from {self.start().folder} on {unit.payload}")
        where = f" on each of {self.compute.nodes} nodes" if self._nodes else ""
        notice(f"processes that train{where}: {processes.number} ({processes.why})")
        result = self._fit(self._job(), processes.number)
        if not result.finished:
            raise Interrupted(self.name)
        if speed := _speed(result.log):
            tokens, count = result.size.all_tokens, self.training()[1]
            spent = Spent(units=tokens, seconds=tokens / speed, device_seconds=tokens / speed * count)
            estimates.remember(self, spent, tokens)
        return Trained(result)

    def training(self) -> tuple[str, int]:
        """All weights or an adapter, and the processes of all nodes."""
        return f"training, {self.aims.method}", self._processes().number * self.compute.nodes

    def _job(self) -> TrainingJob:
        preamble, compute, seed = self.preamble, self.compute, self.settings.run.seed
        folders, start = (self.artifact.journal, self.artifact.log), self.start()
        config = TrainingConfig(
            start.folder, preamble, self.aims, compute, seed, *folders, start.trust_code, self.record
        )
        return TrainingJob(self.name, config, self.data(), self.limit)

    def _fit(self, job: TrainingJob, processes: int) -> TrainingResult:
        if self._nodes:
            mark = secrets.token_hex(16)
            write_atomic(self.artifact.journal / _MARK, [mark.encode()])
            self._nodes.begin(mark)
        if self._nodes or (processes > 1 and self._group.size == 1):
            return job.launch(processes, self._nodes)
        if self.compute.shard and processes == 1:
            notice("trainer.shard has no effect in one process")
        self._group.share(job)
        return job.run(self.stop)

    def plan_text(self, gpus: int | None) -> str:
        """What the training would take."""
        from sandcli.training.plan import plan_training

        job = self._job()
        must_hold(self.data(), self.record, self.fix_empty())
        plan = plan_training(job.config, job.records())
        plan.must_hold_rows()
        steps, size = plan.batches.steps, plan.size
        amount = f"{describe(size)}; {steps} optimiser steps, {size.all_trained:,} tokens with loss in all of them"
        return amount + estimates.estimate(self, size.all_tokens, gpus)

    def summary(self, records: Sized) -> str:
        """Where the log is."""
        return f"the log is {self.artifact.log}"

    def metrics(self, records: Iterable[Trained]) -> Metrics:
        """Loss, size and speed."""
        (trained,) = records
        size, log = trained.result.size, trained.result.log
        return Metrics(
            counts={
                size.noun: size.rows,
                "too_long": len(size.too_long),
                "steps": trained.result.steps,
                "tokens_with_loss_in_all_steps": size.all_trained,
                "tokens_in_all_steps": size.all_tokens,
            },
            figures={
                "first_loss": log[0].loss,
                "last_loss": log[-1].loss,
                **_last_rewards(log[-1]),
                "tokens_a_second": _speed(log),
                "memory_gib": max(entry.memory_gib for entry in log),
            },
            tokens=size.tokens,
            left_out=size.too_long,
            loss=[(entry.step, entry.loss) for entry in log],
        )


def _speed(log: Sequence[LoggedStep]) -> float:
    """Tokens a second; resuming and the first step are slower."""
    return median(entry.tokens_a_second for entry in log)


def _last_rewards(last: LoggedStep) -> dict[str, float]:
    """Of pairs: how well the model tells the sides apart."""
    if last.accuracy is None or last.margin is None:
        return {}
    return {"last_accuracy": last.accuracy, "last_margin": last.margin}
