"""Loads the weights of models."""

import math
import os
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.utils.logging import disable_progress_bar

from sandcli.engines.adapters import is_adapter, weights_of
from sandcli.errors import PrerequisiteError, UsageError

disable_progress_bar()  # a stage shows its own progress


def load_model(
    folder: Path,
    dtype: str = "auto",
    training: bool = False,
    attention: str | None = None,
    quantised: bool = False,
    sharded: bool = False,
) -> Any:
    """Load a model; an adapter is merged into its base. `auto` is bfloat16 on a GPU, else float32.

    Weights to be trained stay in float32: in bfloat16 most updates would be rounded away at a learning rate of 1e-5.
    `quantised` weights have 4 bits, for training an adapter on them; `sharded` ones are distributed over GPUs later.
    Raises `PrerequisiteError` if there is not enough memory.
    """
    gpu = torch.cuda.is_available()
    if dtype == "auto":
        dtype = "bfloat16" if gpu and not training else "float32"
    source = weights_of(folder)
    _must_fit(Path(source), "int4" if quantised else dtype, gpu and not sharded)
    own = {"": int(os.environ.get("LOCAL_RANK", "0"))}  # in distributed training each process has one GPU
    model = AutoModelForCausalLM.from_pretrained(
        source,
        dtype=getattr(torch, dtype),
        device_map=own if gpu and not sharded else None,
        attn_implementation=attention,
        quantization_config=_four_bits() if quantised else None,
    )
    if not is_adapter(folder):
        return model
    from peft import PeftModel

    return PeftModel.from_pretrained(model, folder).merge_and_unload()


def _four_bits() -> BitsAndBytesConfig:
    """Return the quantisation of QLoRA."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32,
    )


def _must_fit(folder: Path, dtype: str, gpu: bool) -> None:
    """Refuse a model that does not fit into memory. Only safetensors files are counted."""
    weights = sum(map(_weights, folder.glob("*.safetensors")))
    needed = weights * (0.5 if dtype == "int4" else getattr(torch, dtype).itemsize)
    if not gpu:
        needed *= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # every process loads its own copy
    free = torch.cuda.mem_get_info()[0] if gpu else psutil.virtual_memory().available
    if needed > free:
        raise PrerequisiteError(
            f"the model in {folder} needs {needed / 2**30:.1f} GiB in {dtype}, and {free / 2**30:.1f} GiB are free",
            "take a smaller model, free memory, or serve it elsewhere and use --engine server",
        )


def _weights(file: Path) -> int:
    try:
        with safe_open(file, framework="pt") as tensors:
            return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    except SafetensorError as error:
        raise UsageError(f"{file} is damaged or incomplete: {error}", "copy the model there again") from None
