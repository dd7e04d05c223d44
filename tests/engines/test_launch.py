"""The vllm engine's servers: how they start, fail and end, and which models they serve under which names."""

import asyncio
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from sandcli.engine_settings import EngineSettings
from sandcli.engines import launch
from sandcli.engines.base import Model
from sandcli.engines.launch import VllmEngine
from sandcli.engines.vllm_options import command, environment, replicas
from sandcli.errors import MachineryError, PrerequisiteError, UsageError
from sandcli.messages import Message
from sandcli.models import fingerprint
from tests import fake_vllm
from tests.helpers import REPO, wait_until
from tests.servers import PROMPT, SIMPLE, until

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("error")]

FATAL = [Message("user", "find the lamp"), Message("assistant", "unheard-of")]
"""A prompt at which the fake server exits."""

SCRIPT = """
import asyncio, signal, sys, time
from pathlib import Path
from sandcli.engines.base import Model
from sandcli.engines.launch import VllmEngine
from sandcli.engine_settings import EngineSettings

async def main():
    engine = await VllmEngine.open(Model(Path(sys.argv[1]), "policy"), EngineSettings(), 0, lambda text: None)
    print("ready", flush=True)
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        print(engine._servers.servers[0].ended() or "running", flush=True)
        raise

signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored where the tests were started
asyncio.run(main())
"""


@pytest.fixture
def pids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Installs the fake vLLM, and gives the file with its process ids."""
    path = str(fake_vllm.install(tmp_path / "installed"))
    monkeypatch.syspath_prepend(path)
    monkeypatch.setenv("PYTHONPATH", f"{path}:{REPO}")
    monkeypatch.setenv("FAKE_VLLM_PIDS", str(tmp_path / "pids"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FAKE_VLLM", raising=False)
    return tmp_path / "pids"


def started(pids: Path) -> list[int]:
    return [int(pid) for pid in pids.read_text().split()] if pids.exists() else []


def running(pids: Path) -> list[int]:
    """The processes that were started and have not ended."""
    found = [psutil.Process(pid) for pid in started(pids) if psutil.pid_exists(pid)]
    return [process.pid for process in found if process.status() != psutil.STATUS_ZOMBIE]


def logs(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache" / "sand" / "vllm").glob("*.log"))


def lora(base: Model, folder: Path, rank: int = 4, weights: str = "") -> Model:
    """A model folder that claims to be an adapter."""
    shutil.copytree(base.folder, folder)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base.folder), "r": rank}))
    (folder / "adapter_model.safetensors").write_text(weights)
    return Model(folder, folder.name)


async def opened(model: Model, rank: int = 0, **settings: Any) -> VllmEngine:
    return await VllmEngine.open(model, EngineSettings(**settings), rank, lambda text: None)


async def answer(engine: Any) -> str:
    """What the fake model says: the name under which it was asked."""
    (completion,) = await engine.generate(PROMPT, SIMPLE)
    return str(completion.text)


def test_servers_start_serve_the_model_by_its_fingerprint_and_end_with_the_engine(
    words: Model, pids: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    notices: list[str] = []

    async def task() -> None:
        engine = await VllmEngine.open(words, EngineSettings(data_parallel=2, batch=3), 0, notices.append)
        assert len(running(pids)) == 4 and engine.capacity == 6
        assert engine.usage()[:3] == (0, 0, 0)
        assert await answer(engine) == fingerprint(words.folder)
        assert all(os.getsid(pid) != os.getsid(0) for pid in running(pids))  # a Ctrl-C does not reach them
        assert [str(log) in notices[0] for log in logs(tmp_path)] == [True, True]
        await engine.close()
        assert running(pids) == [] and logs(tmp_path) == []

    asyncio.run(task())
    assert "".join(capfd.readouterr()) == ""


def test_requests_without_the_key_are_refused(words: Model, pids: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of-another-server")

    async def task() -> None:
        engine = await opened(words)
        server = engine._servers.servers[0].client
        assert await answer(engine)
        with pytest.raises(PrerequisiteError, match="refuses the API key"):
            from sandcli.engines.server import ServerEngine

            await ServerEngine.open(words, EngineSettings(urls=[server.url], patience=0.1), lambda text: None)
        await engine.close()

    asyncio.run(task())


@pytest.mark.parametrize(
    ("error", "what", "fix"),
    [
        (
            "(EngineCore pid=7) ERROR 11-27 [core.py:1510] ValueError: No available memory for the cache blocks. "
            "Try increasing it.\nRuntimeError: Engine core initialization failed. See root cause above.",
            "ValueError: No available memory for the cache blocks",
            "lower engine.max_length, or raise engine.gpu_memory (engine.cache_gib on a CPU)",
        ),
        (
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB.",
            "ValidationError: 1 validation error for ModelConfig",
            "set engine.kind to transformers",
        ),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB.",
            "OutOfMemoryError: CUDA out of memory",
            "lower engine.gpu_memory or engine.max_length, or raise engine.tensor_parallel",
        ),
        (
            "ValueError: LoRA rank 600 is greater than max_lora_rank 512.",
            "ValueError: LoRA rank 600 is greater than max_lora_rank 512",
            "train a plain LoRA adapter of at most rank 512",
        ),
        ("Something odd", "exit status 1", "set engine.kind to transformers"),
        (
            "EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause.",
            "it was killed",
            "lower engine.cache_gib or engine.max_length",
        ),
    ],
)
def test_a_server_that_ends_at_its_start_fails_at_once_and_says_why(
    words: Model, pids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str, what: str, fix: str
) -> None:
    monkeypatch.setenv("FAKE_VLLM", f"fail {error}")
    began = time.monotonic()
    with pytest.raises(PrerequisiteError) as refused:
        asyncio.run(opened(words, data_parallel=2))
    assert time.monotonic() - began < 30
    assert refused.value.what.startswith(f"vLLM cannot serve {words.folder}: {what}")
    assert refused.value.fix.startswith(fix)
    assert running(pids) == []
    assert any(f"the log is {log}" in refused.value.fix and error in log.read_text() for log in logs(tmp_path))


def test_server_whose_port_was_taken_meanwhile_starts_on_another_port(
    words: Model, pids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_ports = launch._free_ports
    with socket.create_server(("127.0.0.1", 0)) as other:
        ports = [[other.getsockname()[1]]]
        monkeypatch.setattr(launch, "_free_ports", lambda count: ports.pop() if ports else free_ports(count))

        async def task() -> None:
            engine = await opened(words)
            assert await answer(engine) == fingerprint(words.folder)
            await engine.close()

        asyncio.run(task())
    assert len(started(pids)) == 4 and running(pids) == [] and logs(tmp_path) == []


def test_server_that_finds_no_free_port_is_an_error(words: Model, pids: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setattr(launch, "_free_ports", lambda count: [other.getsockname()[1]] * count)
        with pytest.raises(PrerequisiteError, match="Address already in use") as refused:
            asyncio.run(opened(words))
    assert refused.value.fix.startswith("run the same command again") and running(pids) == []


def test_without_vllm_it_says_how_to_install_it(words: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PrerequisiteError, match="vllm is not installed") as missing:
        asyncio.run(opened(words))
    assert "make setup-vllm" in missing.value.fix


def test_a_model_without_a_chat_template_is_refused_before_anything_starts(
    words: Model, pids: Path, tmp_path: Path
) -> None:
    mute = Model(Path(shutil.copytree(words.folder, tmp_path / "mute")), "mute")
    (mute.folder / "chat_template.jinja").unlink()
    with pytest.raises(UsageError, match="no chat template"):
        asyncio.run(opened(mute))
    assert started(pids) == []


def test_an_engine_that_is_given_up_while_it_starts_leaves_nothing_behind(
    words: Model, pids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM", "hang")

    async def task() -> None:
        opening = asyncio.create_task(opened(words))
        await until(lambda: len(running(pids)) == 2)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert running(pids) == [] and logs(tmp_path) == []
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(task())


def test_a_server_that_dies_fails_its_requests_and_says_where_its_log_is(
    words: Model, pids: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async def task() -> None:
        engine = await opened(words)
        began = time.monotonic()
        with pytest.raises(MachineryError, match=r"ended: exit status 0; the log is ") as failed:
            await engine.generate(FATAL, SIMPLE)
        with pytest.raises(MachineryError, match="ended"):
            await engine.generate(PROMPT, SIMPLE)
        assert time.monotonic() - began < 30  # its patience would be 60 seconds
        assert str(logs(tmp_path)[0]) in failed.value.detail
        await engine.close()
        assert running(pids) == [] and len(logs(tmp_path)) == 1

    asyncio.run(task())
    assert "".join(capfd.readouterr()) == ""


def test_the_replicas_take_over_from_one_that_dies(words: Model, pids: Path, tmp_path: Path) -> None:
    adapter = lora(words, tmp_path / "adapter")

    async def task() -> None:
        engine = await opened(words, rank=8, data_parallel=2)
        os.kill(started(pids)[0], signal.SIGKILL)
        view = await engine.for_model(adapter)
        assert view is not None and await answer(view) == fingerprint(adapter.folder)
        for number in range(4):
            prompt = [Message("system", "you act"), Message("user", f"find the lamp {number} lamp")]
            assert await engine.generate(prompt, SIMPLE)
        await engine.close()
        assert running(pids) == []

    asyncio.run(task())


def test_requests_of_a_closed_engine_fail(words: Model, pids: Path) -> None:
    async def task() -> None:
        engine = await opened(words)
        server = engine._servers.servers[0]
        os.kill(started(pids)[0], signal.SIGSTOP)
        waiting = asyncio.create_task(engine.generate(PROMPT, SIMPLE))
        await until(lambda: server.client.working == 1)
        closing = asyncio.create_task(engine.close())
        with pytest.raises(MachineryError, match="closed"):
            await waiting
        os.kill(started(pids)[0], signal.SIGCONT)
        await closing
        with pytest.raises(MachineryError, match="closed"):
            await engine.generate(PROMPT, SIMPLE)

    asyncio.run(task())


def test_a_server_that_ignores_sigterm_is_killed(words: Model, pids: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_VLLM", "stubborn")

    async def task() -> None:
        engine = await opened(words)
        await engine.close()
        assert running(pids) == []

    asyncio.run(task())


def program(words: Model, tmp_path: Path) -> "subprocess.Popen[str]":
    """A program of its own with an engine, in a process group of its own."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    arguments = [sys.executable, str(script), str(words.folder)]
    child = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, process_group=0)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def test_a_killed_program_takes_its_servers_with_it(words: Model, pids: Path, tmp_path: Path) -> None:
    child = program(words, tmp_path)
    assert len(running(pids)) == 2
    child.kill()
    child.communicate()
    wait_until(lambda: running(pids) == [], 30)


def test_a_ctrl_c_leaves_the_servers_to_the_engine(words: Model, pids: Path, tmp_path: Path) -> None:
    child = program(words, tmp_path)
    os.killpg(child.pid, signal.SIGINT)
    stdout, _ = child.communicate(timeout=300)
    assert stdout == "running\n"
    wait_until(lambda: running(pids) == [], 30)  # the program did not close its engine


def test_adapters_and_their_base_are_served_by_one_server(words: Model, pids: Path, tmp_path: Path) -> None:
    first, second, large = (lora(words, tmp_path / name, rank) for name, rank in (("a", 4), ("b", 8), ("c", 9)))
    other = Model(Path(shutil.copytree(words.folder, tmp_path / "other")), "other")
    (other.folder / "weights").touch()
    foreign = lora(other, tmp_path / "foreign")

    async def task() -> None:
        engine = await opened(first, rank=5)  # vLLM's next larger rank is 8
        views = [await engine.for_model(model) for model in (first, second, words)]
        said = [await answer(view) for view in (engine, *views)]
        expected = [fingerprint(model.folder) for model in (first, first, second, words)]
        assert said == expected
        assert [await engine.for_model(model) for model in (large, foreign, other)] == [None] * 3
        assert all(view is not None and view.usage() == engine.usage() for view in views)
        assert views[1] is not None
        await views[1].close()
        assert await answer(engine) == fingerprint(first.folder)
        await engine.close()
        assert len(started(pids)) == 2

    asyncio.run(task())


def test_without_a_rank_no_adapter_is_served(words: Model, pids: Path, tmp_path: Path) -> None:
    async def task() -> None:
        engine = await opened(words)
        assert await engine.for_model(lora(words, tmp_path / "adapter")) is None
        await engine.close()

    asyncio.run(task())


def test_an_adapter_that_was_trained_again_is_another_model(words: Model, pids: Path, tmp_path: Path) -> None:
    adapter = lora(words, tmp_path / "adapter", weights="old")
    old = fingerprint(adapter.folder)

    async def task() -> None:
        engine = await opened(adapter)
        (adapter.folder / "adapter_model.safetensors").write_text("new")
        again = await engine.for_model(adapter)
        assert again is not None
        assert [await answer(engine), await answer(again)] == [old, fingerprint(adapter.folder)]
        (words.folder / "weights").write_text("new")
        try:
            assert await engine.for_model(lora(words, tmp_path / "later")) is None  # the server has the old base
        finally:
            (words.folder / "weights").unlink()
        await engine.close()

    asyncio.run(task())


def given(arguments: list[str]) -> dict[str, str]:
    return {name: value for name, _, value in (argument.partition("=") for argument in arguments)}


def test_what_a_cpu_needs_is_set(words: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings = EngineSettings(cache_gib=0.5, max_length=100, batch=7)
    options = given(command(words.folder, "name", settings, 0, {}))
    trusted = given(command(words.folder, "name", settings, 0, {}, trust_code=True))
    assert trusted == options | {"--trust-remote-code": ""}
    assert options["--dtype"] == "float32" and options["--kv-cache-memory-bytes"] == str(2**29)
    assert options["--max-model-len"] == "100" and options["--max-num-batched-tokens"] == "2048"
    assert {"--enforce-eager", "--no-enable-chunked-prefill", "--enable-prefix-caching"} <= set(options)
    assert options["--max-num-seqs"] == "7" and "--enable-lora" not in options
    forgetful = given(command(words.folder, "name", EngineSettings(cache_gib=0), 8, {"b": words.folder}))
    assert "--no-enable-prefix-caching" in forgetful and forgetful["--max-model-len"] == "512"
    assert forgetful["--max-lora-rank"] == "8" and forgetful["b"] == str(words.folder)


@pytest.mark.parametrize(
    ("gpus", "settings", "copies"),
    [
        (0, EngineSettings(), 1),
        (1, EngineSettings(), 1),
        (8, EngineSettings(), 8),
        (8, EngineSettings(tensor_parallel=4), 2),
        (8, EngineSettings(data_parallel=3), 3),
        (2, EngineSettings(tensor_parallel=4), 1),
    ],
)
def test_there_are_as_many_replicas_as_gpus_for_them(
    monkeypatch: pytest.MonkeyPatch, gpus: int, settings: EngineSettings, copies: int
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert replicas(settings) == copies


def test_every_replica_has_gpus_of_its_own(words: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    settings = EngineSettings(data_parallel=2, tensor_parallel=2, gpu_memory=0.5)
    assert [environment(settings, replica)["CUDA_VISIBLE_DEVICES"] for replica in (0, 1)] == ["0,1", "2,3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,5,3,1")
    assert environment(settings, 1)["CUDA_VISIBLE_DEVICES"] == "3,1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,5,3")
    with pytest.raises(PrerequisiteError, match=r"2 x engine\.tensor_parallel 2 needs 4 GPUs, and 3 are visible"):
        environment(settings, 0)
    options = given(command(words.folder, "name", settings, 0, {}))
    assert options["--tensor-parallel-size"] == "2" and options["--gpu-memory-utilization"] == "0.5"
    assert options["--dtype"] == "auto" and "--enforce-eager" not in options
