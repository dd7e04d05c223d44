"""The model to train: all weights, or an adapter on frozen weights."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from sandcli.engines.adapters import adapter_config, is_adapter, weights_of
from sandcli.engines.loading import add_adapter, load_model
from sandcli.errors import PrerequisiteError, UsageError
from sandcli.models import portable_name
from sandcli.training.config import TrainingConfig
from sandcli.training_settings import TrainingSettings


def trainable(config: TrainingConfig, attention: str | None, sharded: bool) -> Any:
    """Load the model to start from. The training of an adapter is continued.

    `attention` is the kind of attention, None for the model's own. `sharded`: the weights will be spread over GPUs.
    """
    start, aims = config.start, config.aims
    load = partial(load_model, attention=attention, sharded=sharded, trust_code=config.trust_code)
    if aims.method == "full":
        if is_adapter(start):
            raise UsageError(f"{start} is an adapter, and method is full", "set method to lora or qlora")
        model = load(start, training=True)
        _refuse_unsavable(model, start)
        return model
    from peft import LoraConfig, get_peft_model

    if is_adapter(start):
        rank = adapter_config(start).r
        if rank != aims.lora_rank:
            raise UsageError(f"{start} is an adapter of rank {rank}, not {aims.lora_rank}", f"set lora_rank = {rank}")
        return add_adapter(_frozen(weights_of(start), aims, sharded, load), start, training=True)
    adapter = LoraConfig(
        r=aims.lora_rank, lora_alpha=2 * aims.lora_rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = get_peft_model(_frozen(start, aims, sharded, load), adapter)
    written = model.peft_config["default"]
    written.base_model_name_or_path, written.revision = portable_name(start)
    return model


def _refuse_unsavable(model: Any, folder: Path) -> None:
    """Raise `UsageError` if saving the trained model would fail: transformers refuses to write such generation flags.

    An adapter is saved without them.
    """
    if not model.can_generate():
        return
    try:
        model.generation_config.validate(strict=True)
    except ValueError as error:
        flags = re.findall(r"^- `(\w+)`", str(error), re.MULTILINE) or str(error).splitlines()[:1]
        published = folder / "generation_config.json"
        source = published if published.exists() else folder / "config.json"
        raise UsageError(
            f"transformers could not save the trained model: {source} has invalid generation flags: {', '.join(flags)}",
            "remove these flags from the file, or set do_sample to true in it if they control sampling",
        ) from None


def _frozen(folder: Path, aims: TrainingSettings, sharded: bool, load: Callable[..., Any]) -> Any:
    if is_adapter(folder):
        raise UsageError(
            f"{folder} is an adapter, and an adapter needs a complete model", "merge it into its base first"
        )
    if aims.method == "lora":
        # Frozen weights need no full precision, but FSDP requires the same type for all.
        return load(folder, training=sharded)
    try:
        import bitsandbytes  # noqa: F401  (transformers quantises with it)
    except ImportError:
        raise PrerequisiteError("method qlora needs bitsandbytes", "pip install bitsandbytes, or use lora") from None
    from peft import prepare_model_for_kbit_training

    model = load(folder, training=True, quantised=True)
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)  # the trainer does it


def in_full_precision(model: Any) -> None:
    """Put trained weights back into float32: TRL rounds an adapter to bfloat16, which would lose small updates."""
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
