"""The weights of models from their folders."""

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
    """The model of a folder, an adapter merged into its base; `auto` is bfloat16 on a GPU and float32 elsewhere.

    Weights that are trained stay in float32: at a learning rate of 1e-5 most updates would be rounded away.
    `quantised` weights, of 4 bits, carry an adapter; `sharded` ones are to be spread over GPUs later. Raises
    `PrerequisiteError` where there is not enough memory.
    """
    gpu = torch.cuda.is_available()
    if dtype == "auto":
        dtype = "bfloat16" if gpu and not training else "float32"
    source = weights_of(folder)
    _must_fit(Path(source), "int4" if quantised else dtype, gpu and not sharded)
    own = {"": int(os.environ.get("LOCAL_RANK", "0"))}  # of several processes that train together each has a GPU
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
    """The quantisation of QLoRA."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32,
    )


def _must_fit(folder: Path, dtype: str, gpu: bool) -> None:
    """Say so before a machine swaps itself to death; files that are no safetensors are not known well enough."""
    weights = sum(map(_weights, folder.glob("*.safetensors")))
    needed = weights * (0.5 if dtype == "int4" else getattr(torch, dtype).itemsize)
    if not gpu:
        needed *= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # every process here loads its own
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
        raise UsageError(f"{file} holds no whole weights: {error}", "copy the model there again") from None
