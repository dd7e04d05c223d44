"""Language models: the interface (`base`), the engines, and the choice between them.

`server` asks OpenAI-compatible servers, `vllm` starts such servers itself (`launch`), `transformers` is the embedded
engine that runs everywhere, and `scripted` answers by rules, for tests.
"""

import asyncio
import importlib.util
import os
from collections.abc import Callable
from typing import NamedTuple

from sandcli.engine_settings import EngineSettings
from sandcli.engines.base import Engine, Model
from sandcli.models import require_package

# Must be set before torch is loaded. Waiting threads that spin take the cores from the simulators: with two such
# programs on two cores a decoding step took 1.2 s, and with threads that sleep 0.4 s.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Must be set before transformers is loaded, which warns if torch is missing; tokenizers work without it.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")


class Choice(NamedTuple):
    """The kind of an engine, and the reason for choosing it."""

    kind: str
    reason: str


def choose(settings: EngineSettings) -> Choice:
    """Resolve `auto`. What the settings name explicitly counts more than what the machine has."""
    if settings.kind != "auto":
        return Choice(settings.kind, "as set")
    if settings.urls:
        return Choice("server", "engine.urls is set")
    if importlib.util.find_spec("vllm") is None:
        return Choice("transformers", "it runs everywhere; vLLM is not installed")
    import torch

    if torch.cuda.is_available():
        return Choice("vllm", "vLLM and a GPU are available")
    return Choice("transformers", "there is no GPU; --engine vllm runs vLLM on the CPU")


def devices(kind: str, settings: EngineSettings) -> int:
    """The GPUs that an engine computes on, 1 without any; 0 for servers of the user's, of which it is not known."""
    if kind == "vllm":
        from sandcli.engines.vllm_options import replicas

        return replicas(settings) * settings.tensor_parallel
    return 0 if kind == "server" else 1


async def open_engine(
    kind: str, model: Model, settings: EngineSettings, lora_rank: int, notice: Callable[[str], None]
) -> Engine:
    """Open an engine of a resolved kind with a model; for the scripted engine the model's folder is the rules file.

    `lora_rank` is the largest rank of adapters that may be needed later. Raises `PrerequisiteError` if something is
    missing.
    """
    if kind == "scripted":
        from sandcli.engines.scripted import ScriptedEngine

        return ScriptedEngine.load(model.folder)
    if kind == "server":
        from sandcli.engines.server import ServerEngine

        return await ServerEngine.open(model, settings, notice)
    if kind == "vllm":
        from sandcli.engines.launch import VllmEngine

        return await VllmEngine.open(model, settings, lora_rank, notice)
    require_package("torch", "the transformers engine")
    from sandcli.engines.transformers import TransformersEngine

    return await asyncio.to_thread(TransformersEngine, model, settings)
