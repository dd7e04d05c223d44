"""What watches over a training run: counts steps, keeps the log, saves checkpoints, stops when it must."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil
import torch
from accelerate import PartialState
from transformers import TrainerCallback

from sandcli.training.checkpoints import COMPLETE, settle
from sandcli.training.errors import is_broken
from sandcli.training.recipe import Hooks, Logged


class Watch(TrainerCallback):  # type: ignore[misc]
    """The trainer's callback in each process; `log` is the file of the first one, None in the others."""

    def __init__(self, minutes: float, hooks: Hooks, log: Path | None) -> None:
        self._minutes, self._hooks, self._log = minutes, hooks, log
        self._saved = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After a kill the log may hold steps that the last checkpoint does not know."""
        if self._log is not None:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            self._log.write_bytes(b"".join(map(_line, logged(state.log_history))))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Decide together: a process that stopped alone would leave the others waiting for it."""
        self._hooks.stepped()
        stop, due = self._hooks.agreed((self._hooks.stop(), time.monotonic() - self._saved >= self._minutes * 60))
        last = state.global_step >= state.max_steps
        control.should_save = (due or stop) and not last
        control.should_training_stop |= stop

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Note the step; a loss or gradient that is no number ends the training, and no checkpoint is made of it."""
        entries = logged(state.log_history[-1:])
        if entries and self._log is not None:
            with self._log.open("ab") as file:
                file.write(_line(entries[0]))
        if entries and is_broken(entries[0]):
            control.should_training_stop, control.should_save = True, False

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Mark the checkpoint as whole, when every process has written its part of it."""
        PartialState().wait_for_everyone()
        if self._log is not None:
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            settle(checkpoint)
            (checkpoint / COMPLETE).touch()
        self._saved = time.monotonic()


class Meter:
    """The speed of training since it was last read, and the most memory that was taken."""

    def __init__(self, tokens: Sequence[int], epochs: int) -> None:
        """`tokens`: how many each step of the run computes."""
        self._tokens, self._epochs = tokens, epochs
        self._read = time.monotonic()

    def read(self, step: int) -> dict[str, float]:
        """What the log tells beside the loss, after a step."""
        now = time.monotonic()
        seconds, self._read = now - self._read, now
        memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else psutil.Process().memory_info().rss
        return {
            "passes": round(step * self._epochs / len(self._tokens), 3),
            "tokens_a_second": round(self._tokens[step - 1] / seconds, 1),
            "memory_gib": round(memory / 2**30, 2),
        }


def logged(history: Sequence[Mapping[str, Any]]) -> list[Logged]:
    """The trainer's own notes as records."""
    return [
        Logged(
            step=entry["step"],
            epoch=entry["passes"],  # the trainer takes all epochs for one
            loss=float(entry["loss"]),
            learning_rate=float(entry["learning_rate"]),
            gradient_norm=float(entry.get("grad_norm", 0.0)),
            tokens_a_second=entry["tokens_a_second"],
            memory_gib=entry["memory_gib"],
        )
        for entry in history
        if "loss" in entry
    ]


def _line(entry: Logged) -> bytes:
    return msgspec.json.encode(entry) + b"\n"
