"""Language models: the protocol (`base`), engines, and which one is taken.

`vllm` runs vLLM in this process, `server` asks OpenAI-compatible servers, `transformers` is the embedded engine that
runs everywhere, `scripted` answers from rules, for tests.
"""

import asyncio
import importlib.util
import os
from collections.abc import Callable
from typing import NamedTuple

from sandcli.engines.base import Engine, Model, Setup

# Must be set before torch is loaded. Threads that spin while they wait take the cores from the simulators that they
# wait for: with two such programs on two cores, a decoding step took 1.2 s so, and 0.4 s with threads that sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class Choice(NamedTuple):
    """An engine and why it was taken."""

    kind: str
    reason: str


def choose(kind: str, setup: Setup) -> Choice:
    """Resolve `auto`: what the settings name explicitly comes before what the machine has."""
    if kind != "auto":
        return Choice(kind, "as set")
    if setup.urls:
        return Choice("server", "engine.urls is set")
    if importlib.util.find_spec("vllm") is None:
        return Choice("transformers", "it runs everywhere; vLLM is not installed")
    import torch

    if torch.cuda.is_available():
        return Choice("vllm", "vLLM and a GPU are there")
    return Choice("transformers", "there is no GPU; --engine vllm takes vLLM on the CPU")


async def open_engine(kind: str, model: Model, setup: Setup, notice: Callable[[str], None]) -> Engine:
    """The engine of a resolved kind with a model loaded; the folder is the rules for the scripted engine.

    Raises `PrerequisiteError` for what is missing, and says what to do about it.
    """
    if kind == "scripted":
        from sandcli.engines.scripted import ScriptedEngine

        return ScriptedEngine.load(model.folder)
    if kind == "server":
        from sandcli.engines.server import ServerEngine

        return await ServerEngine.open(model, setup, notice)
    if kind == "vllm":
        from sandcli.engines.vllm import VllmEngine

        return await VllmEngine.open(model, setup)
    from sandcli.engines.transformers import TransformersEngine

    return await asyncio.to_thread(TransformersEngine, model, setup)
