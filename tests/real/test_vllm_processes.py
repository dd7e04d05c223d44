"""vLLM's own processes: what they say when they refuse a model, and that they never outlive the program."""

import asyncio
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from sandcli.engine_settings import EngineSettings
from sandcli.engines.base import Model
from sandcli.engines.launch import VllmEngine
from sandcli.engines.tokens import load_tokenizer
from sandcli.errors import PrerequisiteError
from sandcli.messages import Message
from tests.helpers import REPO
from tests.real.test_vllm import lora, plain

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed: make setup-vllm"),
]

SCRIPT = """
import asyncio, sys
from pathlib import Path
from sandcli.engines.base import Model, Sampling
from sandcli.engines.launch import VllmEngine
from sandcli.messages import Message
from sandcli.engine_settings import EngineSettings

async def main():
    model, settings = Model(Path(sys.argv[1]), "adapter"), EngineSettings(cache_gib=0.5)
    engine = await VllmEngine.open(model, settings, 0, lambda text: None)
    (answer,) = await engine.generate([Message("user", "Where am I?")], Sampling(max_tokens=8))
    print(repr(answer.text), flush=True)
    await engine.generate([Message("user", "On.")], Sampling(max_tokens=1900))
    await asyncio.sleep(600)

asyncio.run(main())
"""


def refusal(folder: Path, cache_gib: float) -> PrerequisiteError:
    with pytest.raises(PrerequisiteError, match="vLLM cannot serve") as refused:
        asyncio.run(VllmEngine.open(Model(folder, "model"), EngineSettings(cache_gib=cache_gib), 0, print))
    assert not any("VLLM" in process.name() for process in psutil.Process().children(recursive=True))
    return refused.value


def test_a_refusal_says_what_to_change(tiny: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "engine.cache_gib on a CPU" in refusal(tiny, 0.0001).fix
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_model_that_vllm_cannot_compute_is_refused_at_once(tiny: Path, tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(tiny)
    config.num_attention_heads, config.num_key_value_heads, config.head_dim = 8, 8, 8
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    load_tokenizer(tiny).save_pretrained(tmp_path)
    refused = refusal(tmp_path, 0.5)
    assert "head_dim=8" in refused.what and "engine.kind" in refused.fix


def test_a_killed_program_takes_vllm_with_it(tiny: Path, tmp_path: Path) -> None:
    """The program opens the engine on an adapter, as a user's would, and is killed while vLLM computes."""
    adapter = lora(tiny, tmp_path / "adapter", rank=5)
    (tmp_path / "script.py").write_text(SCRIPT)
    program = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(adapter)],
        env=os.environ | {"PYTHONPATH": str(REPO)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == f"{plain(adapter, [Message('user', 'Where am I?')], 8)!r}\n"
    family = psutil.Process(program.pid).children(recursive=True)
    assert any("EngineCore" in process.name() for process in family)
    program.kill()
    assert program.communicate()[0] == ""
    _, alive = psutil.wait_procs(family, timeout=60)
    assert alive == []
