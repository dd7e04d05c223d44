"""vLLM's processes: their output, what they say when they fail, and that they never outlive the program."""

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from sandcli.engines.base import Model, Setup
from sandcli.engines.tokens import load_tokenizer
from sandcli.engines.vllm import VllmEngine
from sandcli.errors import PrerequisiteError
from sandcli.messages import Message
from tests.real.test_vllm import lora, plain

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed: make setup-vllm"),
]

SCRIPT = """
import asyncio, sys
from pathlib import Path
import msgspec, psutil
from sandcli.engines.base import Model, Sampling, Setup
from sandcli.engines.vllm import VllmEngine
from sandcli.errors import MachineryError
from sandcli.agent.turns import Message

def say(what):
    print("SAID", msgspec.json.encode(what).decode(), file=sys.stderr, flush=True)

async def main():
    engine = await VllmEngine.open(Model(Path(sys.argv[1]), "adapter"), Setup(cache_gib=0.5))
    core = [p for p in psutil.Process().children() if "EngineCore" in p.name()]
    (answer,) = await engine.generate([Message("user", "Where am I?")], Sampling(max_tokens=8))
    say([answer.text, [p.pid for p in core]])
    asking = asyncio.gather(engine.generate([Message("user", "On.")], Sampling(max_tokens=1900)))
    await asyncio.sleep(0.5)
    if sys.argv[2] == "kill":
        core[0].kill()
    try:
        await asking
    except MachineryError as error:
        say(str(error))
    await engine.close()
    say([p.pid for p in core if p.is_running()])

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.fixture(scope="module")
def adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lora(tiny, tmp_path_factory.mktemp("models") / "adapter", rank=5)


def refusal(folder: Path, setup: Setup) -> PrerequisiteError:
    with pytest.raises(PrerequisiteError, match="vLLM cannot serve") as refused:
        asyncio.run(VllmEngine.open(Model(folder, "model"), setup))
    assert not any("EngineCore" in process.name() for process in psutil.Process().children(recursive=True))
    return refused.value


@pytest.mark.parametrize(
    ("setup", "fix"),
    [
        (Setup(max_length=4096), "lower engine.max_length"),
        (Setup(cache_gib=0.0001), "engine.cache_gib on a CPU"),
    ],
)
def test_a_refusal_says_what_to_change(setup: Setup, fix: str, tiny: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert fix in refusal(tiny, setup).fix
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_model_that_vllm_cannot_compute_is_refused_at_once(tiny: Path, tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(tiny)
    config.num_attention_heads, config.num_key_value_heads, config.head_dim = 8, 8, 8
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    load_tokenizer(tiny).save_pretrained(tmp_path)
    refused = refusal(tmp_path, Setup(cache_gib=0.5))
    assert "head_dim=8" in refused.what and "engine.kind" in refused.fix


def started(folder: Path, adapter: Path, mode: str) -> "subprocess.Popen[str]":
    """A program of its own that opens the engine on an adapter, as a user's would."""
    (folder / "script.py").write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, str(folder / "script.py"), str(adapter), mode],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(program: "subprocess.Popen[str]") -> Any:
    """The program's next message; whatever else it writes to stderr is no traceback."""
    assert program.stderr is not None
    for line in program.stderr:
        assert "Traceback" not in line, line + program.stderr.read()
        if line.startswith("SAID "):
            return json.loads(line[5:])
    raise AssertionError("it ended")


def test_an_engine_that_dies_says_so_and_stdout_stays_empty(adapter: Path, tmp_path: Path) -> None:
    program = started(tmp_path, adapter, "kill")
    text, cores = said(program)
    assert text == plain(adapter, [Message("user", "Where am I?")], 8) and len(cores) == 1
    assert said(program).startswith("engine: vLLM died: its process was killed")
    assert said(program) == []
    stdout, _ = program.communicate(timeout=30)
    assert stdout == "" and program.returncode == 0


def test_a_killed_program_takes_vllm_with_it(adapter: Path, tmp_path: Path) -> None:
    program = started(tmp_path, adapter, "wait")
    _, (core,) = said(program)
    program.kill()
    program.wait()
    deadline = time.monotonic() + 30
    while psutil.pid_exists(core) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not psutil.pid_exists(core)
