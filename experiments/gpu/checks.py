"""The checks, on the code that `sand` itself uses. A check returns what it saw, or raises `Failed` or `NotTried`."""

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from transformers.utils import is_flash_attn_2_available

from experiments.gpu.material import Failed, NotTried, conversations, device, difference, half, logits
from experiments.gpu.training_checks import (
    adapter_training,
    full_training,
    several_at_once,
    sharded_alone,
    sharded_together,
)
from sandcli.engine_settings import EngineSettings
from sandcli.engines import open_engine
from sandcli.engines.base import Model, Sampling
from sandcli.progress import notice

_TOKENS = 32
"""The longest text that is generated: a large model on the CPU takes minutes for it."""

_ROUNDED = 0.1
"""How much logits in bfloat16 may differ, as a share of their spread."""

_EXACT = 1e-3
"""The same in float32."""


def bfloat16(model: Path, work: Path) -> str:
    """A forward pass in bfloat16 gives about the logits of float32."""
    if torch.cuda.is_available() and not torch.cuda.is_bf16_supported():
        raise Failed(f"{device()} does not support bfloat16")
    exact, rounded = logits(model, "float32"), logits(model, "bfloat16")
    share = difference(rounded, exact)
    same = float((exact.argmax(-1) == rounded.argmax(-1)).float().mean())
    seen = f"logits differ by {share:.1%} of their spread; {same:.0%} of the likeliest tokens are the same"
    if not share < _ROUNDED:
        raise Failed(seen)
    return seen


def attention(model: Path, work: Path) -> str:
    """The kinds of attention that are installed agree with the plain one."""
    dtype = "bfloat16" if half() else "float32"
    plain = logits(model, dtype, "eager")
    kinds = ["sdpa", *(["flash_attention_2"] if half() and is_flash_attn_2_available() else [])]
    shares = {kind: difference(logits(model, dtype, kind), plain) for kind in kinds}
    seen = ", ".join(f"{kind} differs from eager by {share:.2%}" for kind, share in shares.items())
    seen += "" if len(kinds) > 1 else "; flash-attention is not used: " + _without_flash()
    if not all(share < (_ROUNDED if half() else _EXACT) for share in shares.values()):
        raise Failed(seen)
    return f"{dtype}: {seen}"


def _without_flash() -> str:
    return "it is not installed" if half() else "it needs a GPU"


def greedy(model: Path, work: Path) -> str:
    """The transformers engine writes the same greedy text here as on the CPU."""
    there = _on_cpu(model, work)
    here = generate(model, "float32")
    speed = f"{device()}: {here['speed']:.1f} tokens/s in float32"
    if half():
        speed += f", {generate(model, 'bfloat16')['speed']:.1f} in bfloat16"
    speed += f"; CPU: {there['speed']:.1f} in float32"
    if place := first_difference(here["texts"], there["texts"]):
        raise Failed(f"{place}; {speed}")
    return f"the same {len(here['texts'])} texts; {speed}"


def generate(model: Path, dtype: Any, kind: str = "transformers") -> dict[str, Any]:
    """The greedy `texts` of all conversations together, and the `speed` in tokens a second."""

    async def run() -> dict[str, Any]:
        settings = EngineSettings(kind=kind, dtype=dtype)  # type: ignore[arg-type]
        engine = await open_engine(kind, Model(model, str(model)), settings, 16, notice)
        try:
            await engine.generate(conversations()[0], Sampling(max_tokens=2))  # the first request also warms up
            started = time.monotonic()
            asked = [engine.generate(messages, Sampling(max_tokens=_TOKENS)) for messages in conversations()]
            answers = [answer for (answer,) in await asyncio.gather(*asked)]
            seconds = time.monotonic() - started
        finally:
            await engine.close()
        return {"texts": [a.text for a in answers], "speed": sum(a.tokens for a in answers) / seconds}

    return asyncio.run(run())


def _on_cpu(model: Path, work: Path) -> dict[str, Any]:
    """The same in a process that sees no GPU."""
    out = work / "on-cpu.json"
    command = [sys.executable, "-m", "experiments.gpu.checks", str(model), str(out)]
    if subprocess.run(command, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}).returncode:
        raise Failed("generating on the CPU failed; see the log")
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def first_difference(found: list[str], wanted: list[str]) -> str:
    """Where texts differ first; empty if they do not."""
    for number, (one, other) in enumerate(zip(found, wanted, strict=True), 1):
        if one != other:
            at = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
            return f"text {number} differs from character {at} on: {one[at:][:20]!r}, on the CPU {other[at:][:20]!r}"
    return ""


def vllm(model: Path, work: Path) -> str:
    """The vllm engine starts and generates. Its texts may differ: it adds up numbers in another order."""
    if importlib.util.find_spec("vllm") is None:
        raise NotTried("vllm is not installed")
    dtype = "bfloat16" if half() else "float32"
    found, wanted = generate(model, dtype, "vllm"), generate(model, dtype)
    same = sum(one == other for one, other in zip(found["texts"], wanted["texts"], strict=True))
    speeds = f"{found['speed']:.1f} tokens/s, the transformers engine {wanted['speed']:.1f}"
    return f"{same} of {len(found['texts'])} texts are those of the transformers engine; {speeds}"


CHECKS: dict[str, Callable[[Path, Path], str]] = {
    "bfloat16": bfloat16,
    "attention": attention,
    "several trajectories at once": several_at_once,
    "sharding in one process": sharded_alone,
    "training in two processes": sharded_together,
    "text on the GPU as on the CPU": greedy,
    "full training": full_training,
    "LoRA training": adapter_training,
    "vLLM": vllm,
}
"""All checks by name; each takes the folder of a model and one for its own files."""


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(generate(Path(sys.argv[1]), "float32")))
