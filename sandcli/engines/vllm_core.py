"""One `AsyncLLM`: how it is set up, what is asked of it, and what became of it when it fails."""

import asyncio
import itertools
import json
import multiprocessing
import re
from pathlib import Path
from typing import Any

import torch

from sandcli.engines.adapters import adapter_base, is_adapter, weights_of
from sandcli.engines.base import Model, Setup, Usage
from sandcli.engines.tokens import context_length
from sandcli.engines.vllm_host import Log, apart
from sandcli.errors import MachineryError, PrerequisiteError

_BATCH_ON_GPU, _BATCH_ON_CPU = 256, 16

_BLOCK = 32
"""Tokens that are cached together on a CPU, the least that it takes well: with vLLM's own 128, a fifth of a short
prompt would be computed anew."""

_TOGETHER = 2048
"""Prompt tokens of one step on a CPU; a longer prompt has one to itself."""

_CACHE_GIB = 1
"""Memory for keys and values on a CPU where nothing is to be reused: those at work need some all the same."""

_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM knows as the largest rank of an adapter."""

_ADAPTERS_AT_ONCE = 2
"""Adapters in one batch; more than these take turns. An evaluation compares two models."""

_FIXES = {
    "No available memory for the cache|larger than the available KV cache": (
        "lower engine.max_length, or raise engine.gpu_memory (engine.cache_gib on a CPU)"
    ),
    "requested memory for kv|memory runs out": "lower engine.cache_gib or engine.max_length",
    "memory utilization|engine's budget|out of memory|OutOfMemory": (
        "lower engine.gpu_memory or engine.max_length, or raise engine.tensor_parallel"
    ),
    "max_model_len": "lower engine.max_length",
    "LoRA|[Aa]dapter": f"train a plain LoRA adapter of at most rank {_RANKS[-1]}, or set engine.kind to transformers",
}


class _Counts:
    """Listens to the steps of vLLM."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin again."""
        self.prompt = self.cached = self.generated = self.steps = 0

    def record(self, scheduler: Any, step: Any, **others: Any) -> None:
        """Count one step of one replica."""
        if step is not None:  # some sequence got a token
            self.prompt += step.prompt_token_stats.total
            self.cached += step.prompt_token_stats.cached_tokens
            self.generated += step.num_generation_tokens
            self.steps += 1

    def log_engine_initialized(self) -> None:
        """Nothing to say."""


class Core:
    """A running vLLM, as all views on it share it."""

    def __init__(self, model: Model, setup: Setup) -> None:
        """Load a model, or the base of an adapter; half a minute at least.

        vLLM's processes end with the thread that this is called in. Raises `PrerequisiteError` where vLLM refuses.
        """
        adapter = is_adapter(model.folder)
        self.base = weights_of(model.folder)
        self._names = _names(model)
        self._rank = _rank_class(max(setup.lora_rank, _rank(model.folder) if adapter else 0))
        self._adapters: dict[Path, Any] = {}
        self._counts = _Counts()
        self._requests = itertools.count()
        self._log = Log()
        try:
            with apart(self._log, cpu=not torch.cuda.is_available()):
                self._llm: Any = self._start(model, setup)
        except Exception as error:
            refusal = self._refusal(error)
            self._log.close()
            raise refusal from None
        self.limit: int = self._llm.model_config.max_model_len
        self.capacity: int = self._llm.vllm_config.scheduler_config.max_num_seqs * setup.data_parallel

    def serves(self, model: Model) -> bool:
        """Whether this is the model, its base, or another adapter of that."""
        if not self._names & _names(model):
            return False
        try:
            return not is_adapter(model.folder) or self.adapter(model.folder) is not None
        except ValueError:
            return False

    def adapter(self, folder: Path) -> Any:
        """How requests name an adapter: the same each time. Raises `ValueError` for one that vLLM cannot serve here."""
        from vllm.config.lora import LoRAConfig
        from vllm.lora.peft_helper import PEFTHelper
        from vllm.lora.request import LoRARequest

        folder = folder.resolve()
        if folder not in self._adapters:
            if not self._rank:
                raise ValueError("the engine was opened without room for a LoRA adapter")
            PEFTHelper.from_local_dir(str(folder), None).validate_legal(LoRAConfig(max_lora_rank=self._rank))
            self._adapters[folder] = LoRARequest(str(folder), len(self._adapters) + 1, str(folder))
        return self._adapters[folder]

    async def prove(self, parameters: Any, adapter: Any) -> None:
        """Generate something. Raises `PrerequisiteError` for what vLLM refuses only then, such as a size of heads."""
        try:
            await self.ask([0], parameters, adapter)
        except MachineryError as error:
            refusal = self._refusal(error.__cause__ or error)
            await self.close()
            raise refusal from None
        self._counts.forget()

    async def ask(self, ids: list[int], parameters: Any, adapter: Any) -> Any:
        """The completions of one prompt. Being cancelled aborts it. Raises `MachineryError` when vLLM fails."""
        if self._llm is None:
            raise MachineryError("engine", "vLLM was closed")
        name = str(next(self._requests))
        try:
            async for output in self._llm.generate({"prompt_token_ids": ids}, parameters, name, lora_request=adapter):
                final = output
            return final.outputs
        except Exception as error:
            raise MachineryError("engine", self._failure(error)) from error

    def usage(self) -> Usage:
        """See `Engine.usage`."""
        counts = self._counts
        return Usage(counts.prompt, counts.cached, counts.generated, counts.generated / max(1, counts.steps))

    async def close(self) -> None:
        """End vLLM's processes. What is still asked, or asked later, fails."""
        from vllm.v1.engine.exceptions import EngineDeadError

        if self._llm is None:
            return
        llm, self._llm = self._llm, None  # the last reference: at the end of the program it would fail to end itself
        if llm.output_handler is not None:
            llm.output_handler.cancel()  # it would take the end of the processes for a failure
        llm.output_processor.propagate_error(EngineDeadError())
        await asyncio.to_thread(llm.shutdown)
        multiprocessing.active_children()  # reaps those that ended
        self._log.close()

    def _start(self, model: Model, setup: Setup) -> Any:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        if is_adapter(model.folder):
            self.adapter(model.folder)
        arguments = AsyncEngineArgs(model=self.base, **_arguments(self.base, setup), **_lora_arguments(self._rank))
        return AsyncLLM.from_engine_args(arguments, stat_loggers=[lambda config, index: self._counts])

    def _failure(self, error: Exception) -> str:
        if self._llm is None:
            return "vLLM was closed"
        if not self._llm.errored:
            return f"vLLM: {type(error).__name__}: {error.__cause__ or error}"
        return f"vLLM died: {self._log.cause(error)}; {self._log.kept()} has all that it said"

    def _refusal(self, error: BaseException) -> PrerequisiteError:
        why = _plainly(self._log.cause(error))
        fixes = [fix for pattern, fix in _FIXES.items() if re.search(pattern, why)]
        fixes.append(f"set engine.kind to transformers; {self._log.kept()} has all that vLLM's processes said")
        return PrerequisiteError(f"vLLM cannot serve {self.base}: {why}", fixes[0])


def _plainly(error: str) -> str:
    """The first sentence of an error, without the frame that its checker of settings puts around it."""
    line = re.sub(r"^ValidationError: .*?Value error, ", "ValueError: ", " ".join(error.split()))
    return re.split(r"\. | \[type=", line)[0]


def _arguments(base: str, setup: Setup) -> dict[str, Any]:
    cpu = not torch.cuda.is_available()
    own = {
        "dtype": "float32" if cpu and setup.dtype == "auto" else setup.dtype,
        "max_num_seqs": setup.batch or (_BATCH_ON_CPU if cpu else _BATCH_ON_GPU),
        "max_model_len": setup.max_length or None,
        "gpu_memory_utilization": setup.gpu_memory,
        "tensor_parallel_size": setup.tensor_parallel,
        "data_parallel_size": setup.data_parallel,
        "enable_prefix_caching": setup.cache_gib > 0,
        "generation_config": "vllm",  # no model brings a temperature of its own
        "disable_log_stats": True,
        "seed": 0,
    }
    return {**own, **_arguments_on_cpu(base, setup)} if cpu else own


def _arguments_on_cpu(base: str, setup: Setup) -> dict[str, Any]:
    from transformers import AutoConfig

    longest = context_length(AutoConfig.from_pretrained(base), setup.max_length)
    return {
        "enforce_eager": True,
        "kv_cache_memory_bytes": int((setup.cache_gib or _CACHE_GIB) * 2**30),
        "block_size": _BLOCK,
        # A prompt that is computed in pieces makes vLLM rewind its random generator, which a CPU's cannot do: it dies.
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(longest, _TOGETHER),
    }


def _lora_arguments(rank: int) -> dict[str, Any]:
    return {"enable_lora": True, "max_lora_rank": rank, "max_loras": _ADAPTERS_AT_ONCE} if rank else {}


def _rank(adapter: Path) -> int:
    """The largest rank in an adapter."""
    config = json.loads((adapter / "adapter_config.json").read_text())
    ranks: list[int] = [config["r"], *(config.get("rank_pattern") or {}).values()]
    return max(ranks)


def _rank_class(rank: int) -> int:
    """The smallest of vLLM's ranks that has room for this one; its greatest where none has."""
    return next((known for known in _RANKS if known >= rank), _RANKS[-1]) if rank else 0


def _names(model: Model) -> set[str]:
    """All that the base of a model is known as."""
    names = [adapter_base(model.folder)] if is_adapter(model.folder) else [str(model.folder), model.name]
    return {str(Path(name).resolve()) if Path(name).exists() else name for name in names}
