"""Language models: the protocol (`base`), the embedded engine (`transformers`), and one for tests (`scripted`)."""

import os
from pathlib import Path
from typing import NamedTuple

from sandcli.engines.base import Engine

# Must be set before torch is loaded. Threads that spin while they wait take the cores from the simulators that they
# wait for: with two such programs on two cores, a decoding step took 1.2 s so, and 0.4 s with threads that sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class Choice(NamedTuple):
    """An engine and why it was taken."""

    kind: str
    reason: str


def choose(kind: str) -> Choice:
    """Resolve `auto`."""
    if kind != "auto":
        return Choice(kind, "as set")
    return Choice("transformers", "it runs everywhere and needs no server")


def open_engine(kind: str, folder: Path, batch: int, cache_gib: float) -> Engine:
    """The engine of a resolved kind; `folder` holds a model, or is the script of the scripted engine."""
    if kind == "scripted":
        from sandcli.engines.scripted import ScriptedEngine

        return ScriptedEngine.load(folder)
    from sandcli.engines.transformers import TransformersEngine

    return TransformersEngine(folder, batch, cache_gib)
