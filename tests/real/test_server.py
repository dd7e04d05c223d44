"""The server engine on a real vLLM with a tiny random model: exact, reproducible, and robust when servers die."""

import asyncio
import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from sandcli.engine_settings import EngineSettings
from sandcli.engines.base import Completion, Model, Sampling
from sandcli.engines.loading import load_model
from sandcli.engines.server import ServerEngine
from sandcli.engines.tokens import load_tokenizer, prompt_ids
from sandcli.errors import ContextOverflow, MachineryError, PrerequisiteError
from sandcli.messages import Message

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed"),
]

PROMPTS = [
    [Message("system", "You act in a text world."), Message("user", f"Find {things}.")]
    for things in ("a lamp", "the garden behind the house, and whoever is in it", "three tools of a carpenter")
]
DRAWN = Sampling(n=4, temperature=1.0, max_tokens=16, seed=7)


class VLLM:
    """A server process of its own."""

    def __init__(self, model: Path, name: str, logs: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/v1"
        self._model, self._name = model, name
        self._log = logs / f"{self._port}.log"
        self.start()

    def start(self) -> None:
        options = "--dtype float32 --enforce-eager --max-model-len 512 --enable-prompt-tokens-details"
        where = ["--host", "127.0.0.1", "--port", str(self._port)]
        module = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*module, "--model", str(self._model), "--served-model-name", self._name, *where, *options.split()],
                env=os.environ | ENVIRONMENT,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """Kill it and its children, as the kernel does when memory runs out."""
        if self._process.poll() is None:
            parent = psutil.Process(self._process.pid)
            for process in (parent, *parent.children(recursive=True)):
                process.kill()
        self._process.wait()


ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}


@pytest.fixture(scope="module")
def model(smollm: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Random weights in a shape that vLLM can serve on a CPU, with sampling defaults that differ from ours."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("served") / "policy"
    tokenizer = load_tokenizer(smollm)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        initializer_range=0.2,  # clear preferences: the two libraries round differently
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    published = {"eos_token_id": tokenizer.eos_token_id, "repetition_penalty": 2.0, "top_k": 1, "temperature": 0.1}
    (folder / "generation_config.json").write_text(json.dumps(published))
    return Model(folder, "policy")


@pytest.fixture(scope="module")
def server(model: Model) -> Iterator[VLLM]:
    started = VLLM(model.folder, model.name, model.folder.parent)
    yield started
    started.kill()


def settings(*servers: VLLM, patience: float = 300.0) -> EngineSettings:
    return EngineSettings(urls=[server.url for server in servers], patience=patience, max_length=512)


def ask(model: Model, server: VLLM, prompts: list[list[Message]], *samplings: Sampling) -> list[list[Completion]]:
    """Return the completions of each prompt with each sampling, requested together."""

    async def together() -> list[list[Completion]]:
        engine = await ServerEngine.open(model, settings(server), lambda notice: None)
        try:
            asked = [engine.generate(prompt, sampling) for prompt in prompts for sampling in samplings]
            return await asyncio.gather(*asked)
        finally:
            await engine.close()

    return asyncio.run(together())


def plain(model: Model, prompt: list[Message], tokens: int) -> str:
    """Return what transformers itself generates greedily."""
    tokenizer, weights = load_tokenizer(model.folder), load_model(model.folder)
    ids = torch.tensor([prompt_ids(tokenizer, prompt)])
    with torch.inference_mode():
        output = weights.generate(
            ids, max_new_tokens=tokens, do_sample=False, repetition_penalty=1.0, top_k=None, temperature=None
        )
    return str(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True))


def test_greedy_answers_equal_plain_generation(model: Model, server: VLLM) -> None:
    answers = ask(model, server, PROMPTS, Sampling(max_tokens=24))
    texts = [plain(model, prompt, 24) for prompt in PROMPTS]
    assert [answer[0].text for answer in answers] == texts
    assert len(set(texts)) == 3


def test_draws_are_reproducible_and_a_larger_n_extends_a_smaller_one(model: Model, server: VLLM) -> None:
    four, again, last = ask(model, server, PROMPTS[:1], DRAWN, DRAWN, DRAWN._replace(n=2, seed=9))
    assert len({completion.text for completion in four}) == 4
    assert (again, last) == (four, four[2:])


def test_generation_ends_before_a_stop_string(model: Model, server: VLLM) -> None:
    ((free,),) = ask(model, server, PROMPTS[:1], Sampling(max_tokens=24))
    stop = free.text[len(free.text) // 2 :][:6]
    ((stopped,),) = ask(model, server, PROMPTS[:1], Sampling(max_tokens=24, stop=(stop,)))
    assert stopped.finish == "stop"
    assert stopped.text == free.text[: free.text.index(stop)]
    assert (free.finish, free.tokens) == ("length", 24)
    assert stopped.tokens < 24


def test_an_assistant_message_at_the_end_is_continued(model: Model, server: VLLM) -> None:
    prompt = [*PROMPTS[0], Message("assistant", "Thought: the lamp")]
    ((continued,),) = ask(model, server, [prompt], Sampling(max_tokens=12))
    assert continued.text == plain(model, prompt, 12)


def test_the_history_of_a_conversation_comes_from_the_cache(model: Model, server: VLLM) -> None:
    async def task() -> None:
        engine = await ServerEngine.open(model, settings(server), lambda notice: None)
        beginning = [Message("system", "You act in a house. " * 50), Message("user", "Find the lamp.")]
        (answer,) = await engine.generate(beginning, Sampling(max_tokens=4))
        before = engine.usage()
        longer = [*beginning, Message("assistant", answer.text), Message("user", "Observation: it is dark.")]
        await engine.generate(longer, Sampling(max_tokens=4))
        after = engine.usage()
        assert before.prompt == len(prompt_ids(load_tokenizer(model.folder), beginning))
        assert after.cached - before.cached > before.prompt - 128  # it keeps whole blocks
        assert (after.generated, round(after.batch, 3)) == (8, 1)
        await engine.close()

    asyncio.run(task())


def test_the_servers_limit_is_the_engines(model: Model, server: VLLM) -> None:
    async def task() -> None:
        engine = await ServerEngine.open(model, settings(server), lambda notice: None)
        longest = 512 - len(prompt_ids(load_tokenizer(model.folder), PROMPTS[0]))
        with pytest.raises(ContextOverflow, match="513 tokens do not fit into the model's 512"):
            await engine.generate(PROMPTS[0], Sampling(max_tokens=longest + 1))
        engine._limit = engine._prompts._limit = 10**6  # as if the server had not said it
        for prompt, tokens in ((PROMPTS[0], longest + 1), ([Message("user", "word " * 600)], 9)):
            with pytest.raises(MachineryError, match="allows conversations of 512 tokens"):
                await engine.generate(prompt, Sampling(max_tokens=tokens))
        await engine.close()

    asyncio.run(task())


def test_a_server_with_another_model_is_refused(model: Model, server: VLLM) -> None:
    stranger = Model(model.folder.parent, "stranger")
    with pytest.raises(PrerequisiteError, match="serves policy, not stranger"):
        asyncio.run(ServerEngine.open(stranger, settings(server), lambda notice: None))


def test_requests_survive_the_death_of_a_server_and_fail_without_any(model: Model, server: VLLM) -> None:
    second = VLLM(model.folder, model.name, model.folder.parent)
    sampling = Sampling(n=8, temperature=1.0, max_tokens=300, seed=3)
    notices: list[str] = []

    async def task() -> None:
        engine = await ServerEngine.open(model, settings(server, second), notices.append)
        expected = await engine.generate(PROMPTS[0], sampling)
        asking = [asyncio.create_task(engine.generate(prompt, sampling)) for prompt in PROMPTS * 2]
        await asyncio.sleep(0.3)
        assert not any(answer.done() for answer in asking)
        second.kill()
        answers = await asyncio.gather(*asking)
        assert answers[0] == answers[3] == expected
        assert [len(answer) for answer in answers] == [8] * 6
        assert notices[-1].startswith(second.url.removesuffix("/v1"))
        engine._settings = settings(server, second, patience=1.0)
        asking = [asyncio.create_task(engine.generate(prompt, sampling)) for prompt in PROMPTS]
        await asyncio.sleep(0.3)
        server.kill()
        for answer in await asyncio.gather(*asking, return_exceptions=True):
            assert isinstance(answer, MachineryError)
        await engine.close()

    try:
        asyncio.run(task())
    finally:
        second.kill()
