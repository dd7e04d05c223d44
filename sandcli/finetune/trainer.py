"""Trains a model on rows, in one process or in one of several that train together."""

import contextlib
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors import SafetensorError
from transformers.integrations import get_available_reporting_integrations
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.utils import is_flash_attn_2_available
from trl import SFTConfig, SFTTrainer

from sandcli.engines.tokens import context_length, load_tokenizer
from sandcli.errors import PrerequisiteError, SandError, UsageError
from sandcli.finetune.batches import Batches, batched
from sandcli.finetune.recipe import Fitted, Hooks, Size, Spec
from sandcli.finetune.rows import IGNORED, Prepared, Row, prepare, refuse_endless
from sandcli.finetune.watch import COMPLETE, Meter, Watch, logged
from sandcli.finetune.weights import Placed, trainable
from sandcli.records import Trajectory


def fit(spec: Spec, trajectories: Sequence[Trajectory], hooks: Hooks) -> Fitted:
    """Train from the model in `spec.start`; checkpoints and, when finished, `result` go into `spec.work`.

    Goes on from the last complete checkpoint. Raises `UsageError` where nothing can be trained on, `SandError`
    where the loss is not a number, `PrerequisiteError` where something is missing or the disk is full.
    """
    recipe, means = spec.recipe, spec.means
    tokenizer = load_tokenizer(spec.start)
    prepared = prepare(tokenizer, spec.system, trajectories, _limit(spec), recipe.too_long)
    size = _size(prepared)
    hooks.sized(size)
    if not prepared.rows:
        raise UsageError("there is no trajectory to train on", "collect more, or raise max_length")
    refuse_endless(tokenizer, prepared.rows[0], spec.start)
    batches = batched(
        [len(row.input_ids) for row in prepared.rows],
        recipe,
        processes=_processes(),
        device_batch=means.device_batch,
    )
    config = _config(spec, batches)
    sharded = bool(config.fsdp)
    model = trainable(spec.start, recipe, Placed("flash_attention_2" if config.padding_free else None, sharded))
    trainer = _trainer(model, tokenizer, config, prepared.rows, batches, recipe.epochs)
    trainer.add_callback(Watch(means.checkpoint_minutes, hooks, spec.log if config.process_index == 0 else None))
    checkpoint = last_checkpoint(Path(config.output_dir))
    hooks.planned(batches.steps, _step(checkpoint))
    with _writing(spec.work):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        log = logged(trainer.state.log_history)
        _refuse_broken(log[-1].loss, log[-1].step, Path(config.output_dir))
        finished = trainer.state.global_step >= trainer.state.max_steps
        if finished:
            _save(trainer, tokenizer, spec.work / "result", sharded)
    return Fitted(log, trainer.state.global_step, size, finished)


def _processes() -> int:
    """How many train together, as their launcher says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _limit(spec: Spec) -> int:
    """The longest trajectory in tokens."""
    from transformers import AutoConfig

    from sandcli.engines.adapters import weights_of

    return context_length(AutoConfig.from_pretrained(weights_of(spec.start)), spec.recipe.max_length)


def _size(prepared: Prepared) -> Size:
    lengths = [len(row.input_ids) for row in prepared.rows]
    trained = sum(label != IGNORED for row in prepared.rows for label in row.labels)
    return Size(len(lengths), sum(lengths), trained, max(lengths, default=0), prepared.too_long)


def _config(spec: Spec, batches: Batches) -> Any:
    recipe, means = spec.recipe, spec.means
    gpu = torch.cuda.is_available()
    sharded = means.shard and gpu and _processes() > 1
    packed = means.device_batch > 1
    if packed and not (gpu and is_flash_attn_2_available()):
        raise PrerequisiteError(
            "trainer.device_batch above 1 needs a GPU and flash-attention",
            "pip install flash-attn, or leave it at 1: trajectories are never padded",
        )
    _refuse_missing(means.report_to)
    if "tensorboard" in means.report_to:
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(spec.log.with_suffix("") / "tensorboard")
    return SFTConfig(
        output_dir=str(spec.work / "checkpoints"),
        num_train_epochs=1,  # the order of rows holds all epochs
        train_sampling_strategy="sequential",
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        per_device_train_batch_size=means.device_batch,
        gradient_accumulation_steps=batches.accumulate,
        padding_free=packed,
        max_length=None,
        seed=recipe.seed,
        bf16=gpu,
        use_cpu=not gpu,
        gradient_checkpointing=gpu and not sharded,
        fsdp=True if sharded else None,
        fsdp_config={"activation_checkpointing": True} if sharded else None,
        ddp_find_unused_parameters=False,
        save_strategy="steps",
        save_steps=batches.steps + 1,  # the watch decides when
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,  # a loss that is not a number must show
        report_to=list(means.report_to) or "none",
    )


def _refuse_missing(loggers: Sequence[str]) -> None:
    there = get_available_reporting_integrations()
    missing = [name for name in loggers if name not in there]
    if missing:
        raise PrerequisiteError(
            f"trainer.report_to names {', '.join(missing)}, which is not installed",
            f"pip install {' '.join(missing)}, or choose of: {', '.join(there) or 'none is installed'}",
        )


def _trainer(model: Any, tokenizer: Any, config: Any, rows: Sequence[Row], batches: Batches, epochs: int) -> Any:
    empty = Row([tokenizer.eos_token_id], [IGNORED])
    data = Dataset.from_list([row._asdict() for row in [*rows, empty]])
    meter = Meter(batches.tokens, epochs)

    class Trainer(SFTTrainer):  # type: ignore[misc]
        """Tells every log, whoever keeps it, how fast and how large the training is."""

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            if "loss" in logs:
                logs |= meter.read(self.state.global_step)
            super().log(logs, start_time)

    trainer = Trainer(model=model, args=config, processing_class=tokenizer, train_dataset=data.select(batches.order))
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    return trainer


@contextlib.contextmanager
def _writing(work: Path) -> Iterator[None]:
    """A full disk, which every library tells in its own words, becomes one line; the torn checkpoint is removed."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if not any(sign in str(error) for sign in ("No space left", "File too large", "file write failed")):
            raise
        kept = last_checkpoint(work / "checkpoints")
        raise PrerequisiteError(
            f"{work} could not be written to: {str(error).splitlines()[0]}",
            f"free some space, then run the same command again: it goes on from step {_step(kept)}",
        ) from error


def _refuse_broken(loss: float, step: int, checkpoints: Path) -> None:
    if math.isfinite(loss):
        return
    # What was saved just before holds the very weights that came to this.
    shutil.rmtree(checkpoints / f"checkpoint-{step - 1}", ignore_errors=True)
    kept = last_checkpoint(checkpoints)
    where = f"the checkpoint of step {_step(kept)} is kept in {kept}" if kept else "there was no checkpoint before"
    raise SandError(f"the loss is {loss} at step {step}; {where}", "lower learning_rate and train again with --force")


def _save(trainer: Any, tokenizer: Any, result: Path, sharded: bool) -> None:
    """The model as a folder, written by the first process; weights that are spread are gathered by all."""
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if sharded else None
    if trainer.args.process_index == 0:
        shutil.rmtree(result, ignore_errors=True)
        trainer.accelerator.unwrap_model(trainer.model).save_pretrained(result, state_dict=state)
        tokenizer.save_pretrained(result)


def _step(checkpoint: Path | None) -> int:
    return int(checkpoint.name.split("-")[1]) if checkpoint else 0


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written whole; unfinished ones are deleted."""
    found = sorted(folder.glob("checkpoint-*"), key=_step)
    for path in found:
        if not (path / COMPLETE).exists():
            shutil.rmtree(path, ignore_errors=True)
    whole = [path for path in found if path.exists()]
    return whole[-1] if whole else None
