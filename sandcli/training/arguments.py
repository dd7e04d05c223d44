"""TRL's configuration of a training job on this machine."""

import difflib
import os
from collections.abc import Sequence
from typing import Any

import torch
from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.utils import is_flash_attn_2_available
from trl import DPOConfig, SFTConfig

from sandcli.errors import PrerequisiteError, UsageError
from sandcli.training.batches import Batches
from sandcli.training.config import TrainingConfig
from sandcli.training.processes import PATIENCE, process_count
from sandcli.training_settings import PreferSettings


def sft_config(config: TrainingConfig, batches: Batches) -> Any:
    """Of supervised fine-tuning. Raises `PrerequisiteError` if this machine lacks something."""
    packed = config.compute.device_batch > 1
    if packed and not (torch.cuda.is_available() and is_flash_attn_2_available()):
        raise PrerequisiteError(
            "trainer.device_batch above 1 needs a GPU and flash-attention",
            "pip install flash-attn, or leave it at 1: trajectories are never padded",
        )
    return _for_one_device(SFTConfig(**_shared(config, batches), lr_scheduler_type="cosine", padding_free=packed))


def dpo_config(config: TrainingConfig, aims: PreferSettings, batches: Batches) -> Any:
    """Of preference optimisation: the same, and what belongs to pairs. A device computes one pair at a time."""
    schedule = "cosine" if aims.schedule == "cosine" else "constant_with_warmup"
    return _for_one_device(
        DPOConfig(
            **_shared(config, batches),
            lr_scheduler_type=schedule,
            beta=aims.beta,
            precompute_ref_log_probs=True,
            remove_unused_columns=False,
        )
    )


def _shared(config: TrainingConfig, batches: Batches) -> dict[str, Any]:
    """All settings that differ from TRL's defaults for both."""
    compute, gpu = config.compute, torch.cuda.is_available()
    refuse_missing_loggers(compute.report_to)
    if "tensorboard" in compute.report_to:
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(config.log.with_suffix("") / "tensorboard")
    return {
        "output_dir": str(config.work / "checkpoints"),
        "num_train_epochs": 1,  # the order of rows holds all epochs
        "train_sampling_strategy": "sequential",
        "learning_rate": config.aims.learning_rate,
        "warmup_steps": config.aims.warmup,  # below 1 it is a share
        "per_device_train_batch_size": compute.device_batch,
        "gradient_accumulation_steps": batches.accumulate,
        "max_length": None,
        "seed": config.seed % 2**32,  # numpy accepts no other
        "ddp_find_unused_parameters": False,
        "ddp_timeout": int(PATIENCE.total_seconds()),
        "save_strategy": "steps",
        "save_steps": batches.steps + 1,  # the callback decides when
        "save_total_limit": 2,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # a loss that is not a number must show
        "report_to": list(compute.report_to) or "none",
        **_devices(gpu, sharded=compute.shard and gpu and process_count() > 1),
    }


def _for_one_device(arguments: Any) -> Any:
    """One GPU for each process; the trainer would split a batch over all visible GPUs."""
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
    return arguments


def _devices(gpu: bool, sharded: bool) -> dict[str, Any]:
    return {
        "bf16": gpu,
        "use_cpu": not gpu,
        "gradient_checkpointing": gpu and not sharded,
        "fsdp": True if sharded else None,
        "fsdp_config": sharding() if sharded else None,
    }


def sharding() -> dict[str, bool]:
    """How FSDP works here: only the first process holds all weights before they are spread."""
    return {"activation_checkpointing": True, "cpu_ram_efficient_loading": True}


def refuse_missing_loggers(loggers: Sequence[str]) -> None:
    """Raise if `trainer.report_to` names an unknown logger (`UsageError`) or a missing one (`PrerequisiteError`)."""
    installed = get_available_reporting_integrations()
    for name in loggers:
        if name not in INTEGRATION_TO_CALLBACK:
            close = difflib.get_close_matches(name, INTEGRATION_TO_CALLBACK, n=1)
            hint = f"did you mean {close[0]}?" if close else f"choose from: {', '.join(INTEGRATION_TO_CALLBACK)}"
            raise UsageError(f"trainer.report_to names {name!r}, which is not a logger", hint)
        if name not in installed:
            raise PrerequisiteError(
                f"trainer.report_to names {name}, which is not installed",
                f"install its package, or choose from: {', '.join(installed) or 'none is installed'}",
            )
