"""How a `vllm serve` is set up: its command line and environment, for a GPU or a CPU."""

import os
import sys
from pathlib import Path

import torch

from sandcli.engine_settings import EngineSettings
from sandcli.engines.configs import longest
from sandcli.errors import PrerequisiteError

_BATCH_ON_GPU, _BATCH_ON_CPU = 256, 16

_BLOCK = 32
"""Tokens in a block of the prefix cache on a CPU, the fewest that vLLM runs well with. It caches whole blocks only."""

_PROMPT_TOKENS = 2048
"""Prompt tokens computed in one step on a CPU; a longer prompt is computed alone."""

_CACHE_GIB = 1
"""Memory for keys and values on a CPU if no prefixes are kept: running sequences still need some."""

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM accepts as the largest rank of an adapter."""

_ADAPTERS_TOGETHER = 2
"""Adapters in one batch; further ones take turns. An evaluation compares two models."""


def batch(settings: EngineSettings) -> int:
    """Return the number of sequences that one server generates together."""
    return settings.batch or (_BATCH_ON_GPU if torch.cuda.is_available() else _BATCH_ON_CPU)


def rank_limit(rank: int) -> int:
    """Return the smallest of vLLM's ranks that has room for this one, or its largest; 0 stays 0."""
    return next((known for known in RANKS if known >= rank), RANKS[-1]) if rank else 0


def command(
    base: Path, name: str, settings: EngineSettings, rank: int, adapters: dict[str, Path], trust_code: bool = False
) -> list[str]:
    """Return the command line that serves a base model as `name`, and adapters up to a rank under their names.

    `trust_code`: code that comes with the base may be run.
    """
    length = longest(base, settings.max_length, trust_code)
    options: dict[str, object] = {
        "model": base.resolve(),
        "served-model-name": name,
        "max-model-len": length,
        "max-num-seqs": batch(settings),
        "gpu-memory-utilization": settings.gpu_memory,
        "tensor-parallel-size": settings.tensor_parallel,
        "generation-config": "vllm",  # no sampling defaults of the model
        "seed": 0,
    }
    flags = ["enable-prompt-tokens-details", "disable-log-stats", "disable-uvicorn-access-log"]
    flags.append("enable-prefix-caching" if settings.cache_gib else "no-enable-prefix-caching")
    if trust_code:
        flags.append("trust-remote-code")
    if torch.cuda.is_available():
        options["dtype"] = settings.dtype
    else:
        options |= _options_on_cpu(settings, length)
        flags += ["enforce-eager", "no-enable-chunked-prefill"]  # a prompt computed in pieces crashes it on a CPU
    if rank:
        options |= {"max-lora-rank": rank, "max-loras": _ADAPTERS_TOGETHER}
        flags.append("enable-lora")
    modules = [f"{adapter}={folder.resolve()}" for adapter, folder in adapters.items()]
    return [
        *(sys.executable, "-P", "-m", "vllm.entrypoints.openai.api_server"),
        *(f"--{option}={value}" for option, value in options.items()),
        *(f"--{flag}" for flag in flags),
        *(["--lora-modules", *modules] if modules else []),
    ]


def _options_on_cpu(settings: EngineSettings, length: int) -> dict[str, object]:
    return {
        "dtype": "float32" if settings.dtype == "auto" else settings.dtype,
        "kv-cache-memory-bytes": int((settings.cache_gib or _CACHE_GIB) * 2**30),
        "block-size": _BLOCK,
        "max-num-batched-tokens": max(length, _PROMPT_TOKENS),
    }


def environment(settings: EngineSettings, replica: int) -> dict[str, str]:
    """Return the environment of one server; variables that the user set win."""
    defaults = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",  # the model is in a folder
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
    }
    if torch.cuda.is_available():
        return defaults | os.environ | {"CUDA_VISIBLE_DEVICES": _gpus(settings, replica)}
    cores = len(os.sched_getaffinity(0)) // 2  # the other half is for the environments
    on_cpu = {
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process fewer, each of which takes long to start
        "OMP_NUM_THREADS": str(max(1, cores // replicas(settings))),
    }
    return defaults | on_cpu | os.environ


def replicas(settings: EngineSettings) -> int:
    """Return how many servers to start: as set, or as many as there are GPUs for."""
    gpus = len(_visible()) if torch.cuda.is_available() else 0
    return settings.data_parallel or max(1, gpus // settings.tensor_parallel)


def _visible() -> list[str]:
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",") if given else [str(number) for number in range(torch.cuda.device_count())]


def _gpus(settings: EngineSettings, replica: int) -> str:
    """Return the GPUs of one replica."""
    visible, copies = _visible(), replicas(settings)
    needed = copies * settings.tensor_parallel
    if needed > len(visible):
        raise PrerequisiteError(
            f"engine.data_parallel {copies} x engine.tensor_parallel {settings.tensor_parallel} "
            f"needs {needed} GPUs, and {len(visible)} are visible",
            "lower one of them, or set CUDA_VISIBLE_DEVICES",
        )
    start = replica * settings.tensor_parallel
    return ",".join(visible[start : start + settings.tensor_parallel])
