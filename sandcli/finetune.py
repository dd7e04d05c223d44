"""Fine-tuning: trajectories to masked tokens to a TRL trainer. The one training path, used by `sft` and `train`.

The loss falls on the agent's turns and their end token only. We tokenise ourselves, piece by piece, and assert
that the pieces are the tokens of the whole text: no template needs special tags, and nothing is cut silently.
"""

import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from sandcli.engines.adapters import adapter_base, is_adapter
from sandcli.engines.loading import load_model
from sandcli.engines.tokens import context_length, encode, load_tokenizer, render
from sandcli.errors import SandError, UsageError
from sandcli.react import Message, conversation
from sandcli.records import Trajectory

IGNORED = -100
"""The label of a token that carries no loss."""

_COMPLETE = "complete"
"""A checkpoint without this file was being written when the process died."""


class Recipe(NamedTuple):
    """How to train; see the [sft] and [train] tables of sand.toml."""

    method: str
    lora_rank: int
    learning_rate: float
    epochs: int
    batch_size: int
    max_length: int
    too_long: str
    checkpoint_minutes: float
    seed: int


class Row(NamedTuple):
    """One trajectory as the trainer sees it: token ids, and labels that are `IGNORED` outside the agent's turns."""

    input_ids: list[int]
    labels: list[int]


class Prepared(NamedTuple):
    """Rows to train on, and what happened to trajectories that were too long, by id."""

    rows: list[Row]
    too_long: dict[str, str]


class Fitted(NamedTuple):
    """What came of a training run. `loss`: (step, mean loss of that step's batch). `tokens`: per epoch."""

    loss: list[tuple[int, float]]
    steps: int
    tokens: int
    finished: bool


def tokenise(tokenizer: Any, messages: Sequence[Message]) -> Row:
    """A conversation with loss on the assistant's turns, each up to and with its end token.

    Raises `UsageError` where the template rewrites what was said before: a policy trained so would never see its
    training context again.
    """
    ids: list[int] = []
    labels: list[int] = []
    done = ""
    for number, message in enumerate(messages):
        if message.role != "assistant":
            continue
        opened = render(tokenizer, messages[:number], answer=True)
        closed = render(tokenizer, messages[: number + 1], answer=False)
        said = closed[len(opened) :].rstrip("\n")
        if not opened.startswith(done) or not closed.startswith(opened + message.content):
            raise UsageError("the chat template rewrites earlier turns", "use a model whose template keeps them")
        context, turn = encode(tokenizer, opened[len(done) :]), encode(tokenizer, said)
        ids += context + turn
        labels += [IGNORED] * len(context) + turn
        done = opened + said
    if ids != encode(tokenizer, done):
        raise AssertionError("the pieces of a conversation are not the tokens of the whole")
    return Row(ids, labels)


def prepare(tokenizer: Any, system: str, trajectories: Sequence[Trajectory], limit: int, too_long: str) -> Prepared:
    """All rows; a trajectory of more than `limit` tokens is dropped, or cut by whole steps from its end."""
    rows: list[Row] = []
    report: dict[str, str] = {}
    for trajectory in trajectories:
        row, kept = _fitting(tokenizer, system, trajectory, limit, too_long)
        if kept < len(trajectory.steps):
            what = f"cut to {kept} of {len(trajectory.steps)} steps" if kept else "left out"
            report[trajectory.id] = f"{what}: longer than {limit} tokens"
        if row is not None:
            rows.append(row)
    return Prepared(rows, report)


def _fitting(tokenizer: Any, system: str, trajectory: Trajectory, limit: int, too_long: str) -> tuple[Row | None, int]:
    """The row of the longest allowed beginning of a trajectory, and its number of steps."""
    for kept in range(len(trajectory.steps), 0, -1):
        row = tokenise(tokenizer, training_messages(system, replace(trajectory, steps=trajectory.steps[:kept])))
        if len(row.input_ids) <= limit:
            return row, kept
        if too_long == "drop":
            break
    return None, 0


def training_messages(system: str, trajectory: Trajectory) -> list[Message]:
    """The conversation that is trained on; it ends with the agent's last turn."""
    return conversation(system, trajectory.instruction, trajectory.steps)[:-1]


def fit(
    start: Path,
    system: str,
    trajectories: Sequence[Trajectory],
    recipe: Recipe,
    work: Path,
    hooks: "Hooks",
) -> tuple[Fitted, Prepared]:
    """Train from the model in `start`; checkpoints and, when finished, the result (`work/result`) go into `work`.

    Goes on from the last complete checkpoint in `work`.
    """
    tokenizer = load_tokenizer(start)
    model = _trainable(start, recipe)
    limit = min(recipe.max_length or math.inf, context_length(model.config))
    prepared = prepare(tokenizer, system, trajectories, int(limit), recipe.too_long)
    if not prepared.rows:
        raise UsageError("there is no trajectory to train on", "collect more, or raise max_length")
    fitted = _train(model, tokenizer, prepared.rows, recipe, work / "checkpoints", hooks)
    if fitted.finished:
        result = work / "result"
        shutil.rmtree(result, ignore_errors=True)
        model.save_pretrained(result)
        tokenizer.save_pretrained(result)
    return fitted, prepared


class Hooks(NamedTuple):
    """How a training run talks to its caller: `planned(total, done)` and `stepped()` count optimiser steps."""

    planned: Callable[[int, int], None]
    stepped: Callable[[], None]
    stop: Callable[[], bool]


def _trainable(start: Path, recipe: Recipe) -> Any:
    if recipe.method == "full":
        return load_model(start, training=True)
    from peft import LoraConfig, PeftModel, get_peft_model

    if is_adapter(start):
        return PeftModel.from_pretrained(load_model(Path(adapter_base(start)), training=True), start, is_trainable=True)
    config = LoraConfig(
        r=recipe.lora_rank, lora_alpha=2 * recipe.lora_rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return get_peft_model(load_model(start.resolve(), training=True), config)


def _train(model: Any, tokenizer: Any, rows: Sequence[Row], recipe: Recipe, folder: Path, hooks: Hooks) -> Fitted:
    import torch
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback, ProgressCallback
    from trl import SFTConfig, SFTTrainer

    gpu = torch.cuda.is_available()
    steps = recipe.epochs * math.ceil(len(rows) / recipe.batch_size)
    config = SFTConfig(
        output_dir=str(folder),
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        per_device_train_batch_size=1,
        gradient_accumulation_steps=min(recipe.batch_size, len(rows)),
        max_length=None,
        seed=recipe.seed,
        bf16=gpu,
        use_cpu=not gpu,
        gradient_checkpointing=gpu,
        save_strategy="steps",
        save_steps=steps + 1,  # the watch below decides when
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,  # a loss that is not a number must show
        report_to="none",
    )
    trainer = SFTTrainer(
        model=model,
        args=config,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list([row._asdict() for row in rows]),
        callbacks=[_watch(recipe.checkpoint_minutes, hooks)],
    )
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    checkpoint = last_checkpoint(folder)
    hooks.planned(steps, int(checkpoint.name.split("-")[1]) if checkpoint else 0)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    loss = [(int(entry["step"]), float(entry["loss"])) for entry in trainer.state.log_history if "loss" in entry]
    if any(math.isnan(value) for _, value in loss):
        raise SandError("the loss is not a number", "lower learning_rate and train again with --force")
    tokens = sum(len(row.input_ids) for row in rows)
    return Fitted(loss, trainer.state.global_step, tokens, trainer.state.global_step >= trainer.state.max_steps)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written whole; unfinished ones are deleted."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for path in found:
        if not (path / _COMPLETE).exists():
            shutil.rmtree(path)
    whole = [path for path in found if path.exists()]
    return whole[-1] if whole else None


def _watch(minutes: float, hooks: Hooks) -> Any:
    """The trainer's callback: counts steps, saves every so many minutes, stops when asked to."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self._saved = time.monotonic()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            hooks.stepped()
            due = time.monotonic() - self._saved >= minutes * 60
            last = state.global_step >= state.max_steps
            control.should_save = (due or hooks.stop()) and not last
            control.should_training_stop |= hooks.stop()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if math.isnan(float((logs or {}).get("loss", 0.0))):
                control.should_training_stop, control.should_save = True, False

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._saved = time.monotonic()
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / _COMPLETE).touch()

    return Watch()
