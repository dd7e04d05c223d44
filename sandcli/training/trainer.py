"""Trains a model, in one process or in several that train together."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl import SFTTrainer

from sandcli.errors import Interrupted
from sandcli.files import follow_umask
from sandcli.records import Pair, Trajectory
from sandcli.training.arguments import dpo_config, sft_config
from sandcli.training.callbacks import Meter, StepCallback, logged_steps
from sandcli.training.checkpoints import fsync_all, last_checkpoint, refuse_other_sharding, step_of
from sandcli.training.config import REFERENCE, Hooks, LoggedStep, TrainingConfig, TrainingResult
from sandcli.training.errors import explained, refuse_broken
from sandcli.training.plan import TrainingPlan, plan_training
from sandcli.training.preferences import PreferenceTrainer
from sandcli.training.rows import refuse_endless
from sandcli.training.weights import in_full_precision, trainable
from sandcli.training_settings import PreferSettings


def fit(config: TrainingConfig, records: Sequence[Trajectory | Pair], hooks: Hooks) -> TrainingResult:
    """Train on trajectories (SFT) or preference pairs (DPO), from the model in `config.start`.

    Checkpoints and, at the end, `result` go into `config.work`.

    Resumes from the last complete checkpoint. Raises `UsageError` if there is nothing to train on or the model could
    not be saved, `SandError` if the loss is not a number, and `PrerequisiteError` if something is missing or the disk
    or the GPU is full.
    """
    plan = plan_training(config, records)
    hooks.sized(plan.size)
    plan.must_hold_rows()
    refuse_endless(plan.tokenizer, plan.rows[0].end, config.start)
    with explained(config.work):
        try:
            trainer = _trainer(config, plan, hooks)
        except Interrupted:
            return TrainingResult([], 0, plan.size, finished=False)
        log = _run(trainer, plan.batches.steps, hooks)
        finished = trainer.state.global_step >= trainer.state.max_steps
        if finished:
            _save(trainer, plan.tokenizer, config.work / "result")
    return TrainingResult(log, trainer.state.global_step, plan.size, finished)


def _trainer(config: TrainingConfig, plan: TrainingPlan, hooks: Hooks) -> Any:
    _give_pad(plan.tokenizer, plan.rows[0].end)
    aims = config.aims
    trainer = _preferring(config, aims, plan, hooks) if isinstance(aims, PreferSettings) else _supervised(config, plan)
    in_full_precision(trainer.model)
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    log = config.log if trainer.args.process_index == 0 else None
    trainer.add_callback(StepCallback(config.compute.checkpoint_minutes, hooks, log))
    return trainer


def _supervised(config: TrainingConfig, plan: TrainingPlan) -> Any:
    arguments = sft_config(config, plan.batches)
    attention = "flash_attention_2" if arguments.padding_free else None
    model = trainable(config, attention, sharded=bool(arguments.fsdp))
    rows = [row._asdict() for row in [*plan.rows, plan.rows[0].empty()]]
    data = Dataset.from_list(rows).select(plan.batches.order)
    return _measured(SFTTrainer, plan)(model=model, args=arguments, processing_class=plan.tokenizer, train_dataset=data)


def _preferring(config: TrainingConfig, aims: PreferSettings, plan: TrainingPlan, hooks: Hooks) -> Any:
    arguments = dpo_config(config, aims, plan.batches)
    model = trainable(config, None, sharded=bool(arguments.fsdp))
    return _measured(PreferenceTrainer, plan)(
        plan.rows,
        plan.batches,
        config.work / REFERENCE,
        hooks,
        model=model,
        args=arguments,
        processing_class=plan.tokenizer,
    )


def _measured(kind: Any, plan: TrainingPlan) -> Any:
    """A trainer of TRL that adds speed and memory to every log."""
    meter = Meter(plan.batches.tokens, plan.batches.epoch)

    class Trainer(kind):  # type: ignore[misc]
        def _issue_warnings_after_load(self, load_result: Any) -> None:
            """Tied weights are saved once, so a checkpoint only seems to lack them."""
            tied = getattr(self.model, "_tied_weights_keys", None) or ()
            if not (self.model.config.tie_word_embeddings and set(load_result.missing_keys) <= set(tied)):
                super()._issue_warnings_after_load(load_result)

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            if "loss" in logs:
                logs |= meter.read(self.state.global_step)
            super().log(logs, start_time)

    return Trainer


def _give_pad(tokenizer: Any, end: int) -> None:
    """Make a tokenizer without an end token pad with the token that ends a turn; otherwise TRL refuses it."""
    if tokenizer.pad_token is None and tokenizer.eos_token is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(end)


def _run(trainer: Any, steps: int, hooks: Hooks) -> list[LoggedStep]:
    """Train from the last checkpoint, or from the start."""
    checkpoints = Path(trainer.args.output_dir)
    checkpoint = last_checkpoint(checkpoints)
    if checkpoint is not None:
        refuse_other_sharding(checkpoint, sharded=bool(trainer.args.fsdp))
    hooks.planned(steps, step_of(checkpoint))
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    log = logged_steps(trainer.state.log_history)
    refuse_broken(log[-1], checkpoints)
    return log


def _save(trainer: Any, tokenizer: Any, result: Path) -> None:
    """Write the model to a folder. The first process writes; all processes gather weights that are spread."""
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if trainer.args.fsdp else None
    if trainer.args.process_index == 0:
        shutil.rmtree(result, ignore_errors=True)
        trainer.accelerator.unwrap_model(trainer.model).save_pretrained(result, state_dict=state)
        tokenizer.save_pretrained(result)
        follow_umask(result)
        fsync_all(result)
