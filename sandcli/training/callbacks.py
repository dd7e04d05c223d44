"""The trainer's callback: counts steps, writes the log, saves checkpoints, stops."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil
import torch
from accelerate import PartialState
from transformers import TrainerCallback

from sandcli.training.checkpoints import COMPLETE, fsync_all
from sandcli.training.config import Hooks, LoggedStep
from sandcli.training.errors import is_broken


class StepCallback(TrainerCallback):  # type: ignore[misc]
    """The callback of each process; `log` is the log file in the first process, None in the others."""

    def __init__(self, checkpoint_minutes: float, hooks: Hooks, log: Path | None) -> None:
        self._minutes, self._hooks, self._log = checkpoint_minutes, hooks, log
        self._saved = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Rewrite the log: after a kill it may hold steps that the last checkpoint does not have."""
        if self._log is not None:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            self._log.write_bytes(b"".join(map(_line, logged_steps(state.log_history))))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Decide together whether to save or stop: a process that stopped alone would leave the others waiting."""
        self._hooks.stepped()
        stop, due = self._hooks.agreed((self._hooks.stop(), time.monotonic() - self._saved >= self._minutes * 60))
        last = state.global_step >= state.max_steps
        control.should_save = (due or stop) and not last
        control.should_training_stop |= stop

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Log the step. A loss or gradient that is not a number ends the training without a checkpoint."""
        steps = logged_steps(state.log_history[-1:])
        if steps and self._log is not None:
            with self._log.open("ab") as file:
                file.write(_line(steps[0]))
        if steps and is_broken(steps[0]):
            control.should_training_stop, control.should_save = True, False

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Mark the checkpoint as complete once every process has written its part."""
        PartialState().wait_for_everyone()
        if self._log is not None:
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            fsync_all(checkpoint)
            (checkpoint / COMPLETE).touch()
        self._saved = time.monotonic()


class Meter:
    """The speed of training since the last reading, and the peak of memory."""

    def __init__(self, tokens: Sequence[int], epoch: int) -> None:
        """`tokens` counts the tokens of each step; an epoch takes `epoch` steps."""
        self._tokens, self._epoch = tokens, epoch
        self._read = time.monotonic()

    def read(self, step: int) -> dict[str, float]:
        """The progress, speed and memory to log after a step."""
        now = time.monotonic()
        seconds, self._read = now - self._read, now
        memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else psutil.Process().memory_info().rss
        return {
            "passes": round(step / self._epoch, 3),
            "tokens_a_second": round(self._tokens[step - 1] / seconds, 1),
            "memory_gib": round(memory / 2**30, 2),
        }


def logged_steps(history: Sequence[Mapping[str, Any]]) -> list[LoggedStep]:
    """The trainer's log history as records."""
    return [
        LoggedStep(
            step=entry["step"],
            epoch=entry["passes"],  # the trainer counts all epochs as one
            loss=float(entry["loss"]),
            learning_rate=float(entry["learning_rate"]),
            gradient_norm=float(entry.get("grad_norm", 0.0)),
            tokens_a_second=entry["tokens_a_second"],
            memory_gib=entry["memory_gib"],
            accuracy=entry.get("rewards/accuracies"),
            margin=entry.get("rewards/margins"),
        )
        for entry in history
        if "loss" in entry
    ]


def _line(step: LoggedStep) -> bytes:
    return msgspec.json.encode(step) + b"\n"
