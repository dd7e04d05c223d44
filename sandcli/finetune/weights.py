"""The model that is trained: all weights, or an adapter on frozen ones."""

from pathlib import Path
from typing import Any, NamedTuple

from sandcli.engines.adapters import adapter_base, is_adapter
from sandcli.engines.loading import load_model
from sandcli.errors import PrerequisiteError, UsageError
from sandcli.finetune.recipe import Recipe


class Placed(NamedTuple):
    """How weights are loaded: the kind of attention (None: the model's own), and whether they are spread later."""

    attention: str | None = None
    sharded: bool = False


def trainable(start: Path, recipe: Recipe, placed: Placed) -> Any:
    """The model of a folder, ready to be trained; an adapter is trained on."""
    if recipe.method == "full":
        if is_adapter(start):
            raise UsageError(f"{start} is an adapter, and method is full", "set method to lora or qlora")
        return load_model(start, training=True, **placed._asdict())
    from peft import LoraConfig, PeftModel, get_peft_model

    if is_adapter(start):
        base = _frozen(Path(adapter_base(start)), recipe, placed)
        return PeftModel.from_pretrained(base, start, is_trainable=True)
    config = LoraConfig(
        r=recipe.lora_rank, lora_alpha=2 * recipe.lora_rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return get_peft_model(_frozen(start.resolve(), recipe, placed), config)


def _frozen(folder: Path, recipe: Recipe, placed: Placed) -> Any:
    if is_adapter(folder):
        raise UsageError(f"{folder} is an adapter, and an adapter needs a whole model", "merge it into its base first")
    if recipe.method == "lora":
        return load_model(folder, training=True, **placed._asdict())
    try:
        import bitsandbytes  # noqa: F401  (what transformers quantises with)
    except ImportError:
        raise PrerequisiteError("method qlora needs bitsandbytes", "pip install bitsandbytes, or use lora") from None
    from peft import prepare_model_for_kbit_training

    model = load_model(folder, training=True, quantised=True, **placed._asdict())
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)  # the trainer sees to that
