"""Loads the weights of models."""

import json
import logging
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.utils.logging import disable_progress_bar

from sandcli.engines.adapters import is_adapter, weights_of
from sandcli.engines.configs import first_line, load_config, load_errors
from sandcli.errors import PrerequisiteError, UsageError

disable_progress_bar()  # a stage shows its own progress
for _name in ("modeling_utils", "distributed.tensor_parallel"):  # reports on weights, which are checked here, and notes
    logging.getLogger(f"transformers.{_name}").setLevel(logging.ERROR)  # about tensor parallelism, which is not used

_NAMED = 3
"""How many weights an error names; a model may lack thousands."""


def load_model(
    folder: Path,
    dtype: str = "auto",
    training: bool = False,
    attention: str | None = None,
    quantised: bool = False,
    sharded: bool = False,
    trust_code: bool = False,
) -> Any:
    """Load a model; an adapter is merged into its base. `auto` is bfloat16 on a GPU, else float32.

    Weights to be trained stay in float32: in bfloat16 most updates would be rounded away at a learning rate of 1e-5.
    `quantised` weights have 4 bits, for training an adapter on them. `sharded` ones are spread over GPUs later: only
    the first process reads them, and the others get a model without weights. `trust_code`: code that comes with the
    model may be run.
    Raises `UsageError` if the folder does not hold exactly the weights of the model, and `PrerequisiteError` if there
    is not enough memory.
    """
    gpu = torch.cuda.is_available()
    if dtype == "auto":
        dtype = "bfloat16" if gpu and not training else "float32"
    source = weights_of(folder)
    _refuse_quantised(load_config(source, trust_code), source)
    if sharded and not quantised:
        _must_fit(source, dtype, gpu=False, copies=1)
        if os.environ.get("RANK", "0") != "0":
            return _empty(source, dtype, attention, trust_code)
    else:
        _must_fit(source, "int4" if quantised else dtype, gpu and not sharded)
    own = {"": int(os.environ.get("LOCAL_RANK", "0"))}  # in distributed training each process has one GPU
    model = _loaded(
        source,
        trust_code,
        dtype=getattr(torch, dtype),
        device_map=own if gpu and not sharded else None,
        attn_implementation=attention,
        quantization_config=_four_bits() if quantised else None,
    )
    return add_adapter(model, folder).merge_and_unload() if is_adapter(folder) else model


def _loaded(folder: Path, trust_code: bool, **options: Any) -> Any:
    """Load all weights, and check that none is missing: missing ones would be left random."""
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, trust_remote_code=trust_code, ignore_mismatched_sizes=True, output_loading_info=True, **options
        )
    except torch.OutOfMemoryError:
        raise
    except load_errors(trust_code) as error:
        raise UsageError(
            f"transformers cannot load the model in {folder}: {first_line(error)}",
            "use a text model with its weights as safetensors, or serve it: --engine vllm or server",
        ) from None
    unlike = [name for name, *_ in report["mismatched_keys"]]
    unknown = [name for name in report["unexpected_keys"] if _belongs(model, name)]
    _refuse_weights(folder, {"lack": report["missing_keys"], "have other sizes of": unlike, "also have": unknown})
    return model


def _empty(folder: Path, dtype: str, attention: str | None, trust_code: bool) -> Any:
    """The model with weights that take no memory. Its buffers are computed, not loaded, so they are all there."""
    from accelerate import init_empty_weights

    with init_empty_weights():
        return AutoModelForCausalLM.from_config(
            load_config(folder, trust_code),
            dtype=getattr(torch, dtype),
            attn_implementation=attention,
            trust_remote_code=trust_code,
        )


def _belongs(model: Any, name: str) -> bool:
    """Whether a weight that the model does not have belongs to one of its layers, for example as a bias or a scale."""
    layer, _, weight = name.rpartition(".")
    found = dict(model.named_modules()).get(layer)
    return found is not None and getattr(found, weight, None) is None


def _refuse_weights(folder: Path, wrong: Mapping[str, Sequence[str]]) -> None:
    for what, names in wrong.items():
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            raise UsageError(
                f"the weights in {folder} {what} {', '.join(sorted(names)[:_NAMED])}{more}",
                "copy the model there again, or save it with the names and sizes that its config.json says",
            )


def add_adapter(model: Any, folder: Path, training: bool = False) -> Any:
    """Put an adapter on a model. Raises `UsageError` if it lacks weights, or has other sizes than the model."""
    from peft import PeftModel

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Found missing adapter keys")
            return PeftModel.from_pretrained(model, folder, is_trainable=training)
    except (UserWarning, ValueError, OSError, RuntimeError) as error:
        raise UsageError(
            f"the adapter in {folder} does not fit its base: {first_line(error)}",
            "copy the adapter there again, and check base_model_name_or_path in its adapter_config.json",
        ) from None


def _four_bits() -> BitsAndBytesConfig:
    """Return the quantisation of QLoRA."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32,
    )


def _refuse_quantised(config: Any, folder: Path) -> None:
    """Refuse weights of 4 or 8 bits: they would be loaded as if they were not quantised."""
    for part in (config, config.get_text_config(decoder=True)):
        if found := getattr(part, "quantization_config", None):
            kind = found.get("quant_method", "unknown") if isinstance(found, dict) else found.quant_method
            raise UsageError(
                f"the model in {folder} has quantised weights ({kind})",
                "use the model with its full weights; --engine vllm or server can generate with quantised ones",
            )


def _must_fit(folder: Path, dtype: str, gpu: bool, copies: int | None = None) -> None:
    """Refuse a model that does not fit into memory. Only safetensors files are counted.

    Without a GPU, every process on this machine loads a copy of its own unless `copies` says otherwise.
    """
    weights = sum(map(_weights, _files(folder)))
    needed = weights * (0.5 if dtype == "int4" else getattr(torch, dtype).itemsize)
    if not gpu:
        needed *= copies or int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    free = torch.cuda.mem_get_info()[0] if gpu else psutil.virtual_memory().available
    if needed > free:
        raise PrerequisiteError(
            f"the model in {folder} needs {needed / 2**30:.1f} GiB in {dtype}, and {free / 2**30:.1f} GiB are free",
            "take a smaller model, free memory, or serve it elsewhere and use --engine server",
        )


def _files(folder: Path) -> Sequence[Path]:
    """The files that are loaded: a folder may also hold a second copy of the weights, `consolidated.safetensors`."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.exists() or not index.exists():
        return [whole] if whole.exists() else list(folder.glob("*.safetensors"))
    try:
        names = {str(name) for name in json.loads(index.read_text())["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UsageError(f"{index} is damaged", "copy the model there again") from None
    return [folder / name for name in sorted(names)]


def _weights(file: Path) -> int:
    if not file.exists():
        raise UsageError(f"{file} is missing", "copy the model there again")
    try:
        with safe_open(file, framework="pt") as tensors:
            return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    except SafetensorError as error:
        raise UsageError(f"{file} is damaged or incomplete: {error}", "copy the model there again") from None
