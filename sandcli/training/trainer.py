"""Trains a model on rows, in one process or in one of several that train together."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoConfig
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl import SFTTrainer

from sandcli.engines.adapters import weights_of
from sandcli.engines.tokens import context_length, load_tokenizer
from sandcli.errors import UsageError
from sandcli.records import Trajectory
from sandcli.training.arguments import arguments
from sandcli.training.batches import Batches, batched
from sandcli.training.callbacks import Meter, Watch, logged
from sandcli.training.checkpoints import last_checkpoint, must_be_readable, settle, step_of
from sandcli.training.errors import refuse_broken, told
from sandcli.training.launch import processes
from sandcli.training.recipe import Fitted, Hooks, Logged, Size, Spec
from sandcli.training.rows import IGNORED, Prepared, Row, prepare, refuse_endless
from sandcli.training.weights import in_full_precision, trainable


def fit(spec: Spec, trajectories: Sequence[Trajectory], hooks: Hooks) -> Fitted:
    """Train from the model in `spec.start`; checkpoints and, when finished, `result` go into `spec.work`.

    Goes on from the last complete checkpoint. Raises `UsageError` where nothing can be trained on, `SandError`
    where the loss is not a number, `PrerequisiteError` where something is missing or a disk or GPU is full.
    """
    tokenizer = load_tokenizer(spec.start)
    limit = longest(spec.start, spec.recipe.max_length)
    prepared = prepare(tokenizer, spec.system, trajectories, limit, spec.recipe.too_long)
    size = _size(prepared)
    hooks.sized(size)
    if not prepared.rows:
        raise UsageError("there is no trajectory to train on", "collect more, or raise max_length")
    refuse_endless(tokenizer, prepared.rows[0], spec.start)
    lengths = [len(row.input_ids) for row in prepared.rows]
    batches = batched(lengths, spec.recipe, processes(), spec.means.device_batch)
    with told(spec.work):
        trainer = _trainer(spec, tokenizer, prepared.rows, batches, hooks)
        log = _trained(trainer, batches.steps, hooks)
        finished = trainer.state.global_step >= trainer.state.max_steps
        if finished:
            _save(trainer, tokenizer, spec.work / "result")
    return Fitted(log, trainer.state.global_step, size, finished)


def longest(start: Path, wanted: int) -> int:
    """The longest trajectory that a model can be trained on, in tokens; `wanted` may bound it further."""
    return context_length(AutoConfig.from_pretrained(weights_of(start)), wanted)


def _size(prepared: Prepared) -> Size:
    lengths = [len(row.input_ids) for row in prepared.rows]
    trained = sum(label != IGNORED for row in prepared.rows for label in row.labels)
    return Size(len(lengths), sum(lengths), trained, max(lengths, default=0), prepared.too_long)


def _trainer(spec: Spec, tokenizer: Any, rows: Sequence[Row], batches: Batches, hooks: Hooks) -> Any:
    config = arguments(spec, batches)
    attention = "flash_attention_2" if config.padding_free else None
    model = trainable(spec.start, spec.recipe, attention, sharded=bool(config.fsdp))
    empty = Row([tokenizer.eos_token_id], [IGNORED])
    data = Dataset.from_list([row._asdict() for row in [*rows, empty]])
    meter = Meter(batches.tokens, spec.recipe.epochs)

    class Trainer(SFTTrainer):  # type: ignore[misc]
        """Tells every log, whoever keeps it, how fast and how large the training is."""

        def _issue_warnings_after_load(self, load_result: Any) -> None:
            """Weights that are tied to others are saved once, so that a checkpoint seems to lack them."""
            tied = getattr(self.model, "_tied_weights_keys", None) or ()
            if not (self.model.config.tie_word_embeddings and set(load_result.missing_keys) <= set(tied)):
                super()._issue_warnings_after_load(load_result)

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            if "loss" in logs:
                logs |= meter.read(self.state.global_step)
            super().log(logs, start_time)

    trainer = Trainer(model=model, args=config, processing_class=tokenizer, train_dataset=data.select(batches.order))
    in_full_precision(trainer.model)
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    log = spec.log if config.process_index == 0 else None
    trainer.add_callback(Watch(spec.means.checkpoint_minutes, hooks, log))
    return trainer


def _trained(trainer: Any, steps: int, hooks: Hooks) -> list[Logged]:
    """Train, from the last checkpoint where there is one."""
    checkpoints = Path(trainer.args.output_dir)
    checkpoint = last_checkpoint(checkpoints)
    if checkpoint is not None:
        must_be_readable(checkpoint, sharded=bool(trainer.args.fsdp))
    hooks.planned(steps, step_of(checkpoint))
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    log = logged(trainer.state.log_history)
    refuse_broken(log[-1], checkpoints)
    return log


def _save(trainer: Any, tokenizer: Any, result: Path) -> None:
    """The model as a folder, written by the first process; weights that are spread are gathered by all."""
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if trainer.args.fsdp else None
    if trainer.args.process_index == 0:
        shutil.rmtree(result, ignore_errors=True)
        trainer.accelerator.unwrap_model(trainer.model).save_pretrained(result, state_dict=state)
        tokenizer.save_pretrained(result)
        settle(result)
