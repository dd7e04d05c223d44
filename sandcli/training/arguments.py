"""The trainer's own settings for a recipe, on this machine."""

import difflib
import os
from collections.abc import Sequence
from typing import Any

import torch
from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.utils import is_flash_attn_2_available
from trl import SFTConfig

from sandcli.errors import PrerequisiteError, UsageError
from sandcli.training.batches import Batches
from sandcli.training.launch import PATIENCE, processes
from sandcli.training.recipe import Spec


def arguments(spec: Spec, batches: Batches) -> Any:
    """All that differs from TRL's defaults. Raises `PrerequisiteError` for what this machine has not."""
    means, gpu = spec.means, torch.cuda.is_available()
    packed = means.device_batch > 1
    if packed and not (gpu and is_flash_attn_2_available()):
        raise PrerequisiteError(
            "trainer.device_batch above 1 needs a GPU and flash-attention",
            "pip install flash-attn, or leave it at 1: trajectories are never padded",
        )
    refuse_missing(means.report_to)
    if "tensorboard" in means.report_to:
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(spec.log.with_suffix("") / "tensorboard")
    config = SFTConfig(
        output_dir=str(spec.work / "checkpoints"),
        num_train_epochs=1,  # the order of rows holds all epochs
        train_sampling_strategy="sequential",
        learning_rate=spec.recipe.learning_rate,
        lr_scheduler_type="cosine",
        per_device_train_batch_size=means.device_batch,
        gradient_accumulation_steps=batches.accumulate,
        padding_free=packed,
        max_length=None,
        seed=spec.recipe.seed,
        ddp_find_unused_parameters=False,
        ddp_timeout=int(PATIENCE.total_seconds()),
        save_strategy="steps",
        save_steps=batches.steps + 1,  # the watch decides when
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,  # a loss that is not a number must show
        report_to=list(means.report_to) or "none",
        **_devices(gpu, sharded=means.shard and gpu and processes() > 1),
    )
    if config.n_gpu > 1:
        config._n_gpu = 1  # a process has one GPU; the trainer would spread a batch over all that it sees
    return config


def _devices(gpu: bool, sharded: bool) -> dict[str, Any]:
    return {
        "bf16": gpu,
        "use_cpu": not gpu,
        "gradient_checkpointing": gpu and not sharded,
        "fsdp": True if sharded else None,
        "fsdp_config": {"activation_checkpointing": True} if sharded else None,
    }


def refuse_missing(loggers: Sequence[str]) -> None:
    """Raise where `trainer.report_to` names what nobody knows (`UsageError`) or is not there (`PrerequisiteError`)."""
    there = get_available_reporting_integrations()
    for name in loggers:
        if name not in INTEGRATION_TO_CALLBACK:
            close = difflib.get_close_matches(name, INTEGRATION_TO_CALLBACK, n=1)
            hint = f"did you mean {close[0]}?" if close else f"choose of: {', '.join(INTEGRATION_TO_CALLBACK)}"
            raise UsageError(f"trainer.report_to names {name!r}, which is no logger", hint)
        if name not in there:
            raise PrerequisiteError(
                f"trainer.report_to names {name}, which is not installed",
                f"install its package, or choose of: {', '.join(there) or 'none is installed'}",
            )
