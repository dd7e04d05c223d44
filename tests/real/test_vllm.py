"""The vllm engine on a tiny model: exact against plain generation, adapters and their base on one server."""

import asyncio
import functools
import importlib.util
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from sandcli.engine_settings import EngineSettings
from sandcli.engines.base import Completion, Model, Sampling
from sandcli.engines.launch import VllmEngine
from sandcli.engines.loading import load_model
from sandcli.engines.tokens import load_tokenizer, prompt_ids
from sandcli.errors import ContextOverflow, MachineryError
from sandcli.messages import Message

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed: make setup-vllm"),
]

PROMPTS = [
    [Message("system", "You answer in a few words."), Message("user", f"Name {things}.")]
    for things in ("a colour", "two animals that live in the sea", "three tools of a carpenter and what each is for")
]

LONG = [Message("user", "You are in a hallway. " * 100)]

FREE = Sampling(n=2, temperature=1.0, max_tokens=12, seed=3)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as loop:
        yield loop


@pytest.fixture(scope="module")
def lively(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with larger weights; without them it repeats the last token of any prompt."""
    folder = tmp_path_factory.mktemp("models") / "lively"
    model = load_model(tiny)
    with torch.no_grad():
        for weight in model.model.layers.parameters():
            weight.mul_(10 if weight.dim() > 1 else 1)
    model.save_pretrained(folder)
    load_tokenizer(tiny).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def engine(lively: Path, runner: asyncio.Runner) -> Iterator[VllmEngine]:
    opened = runner.run(VllmEngine.open(Model(lively, "tiny"), EngineSettings(cache_gib=0.5), 5, print))
    yield opened
    runner.run(opened.close())


@pytest.fixture(scope="module")
def adapter(lively: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter that changes what the model says."""
    return lora(lively, tmp_path_factory.mktemp("models") / "adapter", rank=5)


def lora(base: Path, folder: Path, rank: int, seed: int = 1) -> Path:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=rank, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(load_model(base), config)
    torch.manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    load_tokenizer(base).save_pretrained(folder)
    return folder


def ask(
    runner: asyncio.Runner, engine: VllmEngine, prompts: list[list[Message]], sampling: Sampling
) -> list[list[Completion]]:
    async def together() -> list[list[Completion]]:
        return await asyncio.gather(*(engine.generate(prompt, sampling) for prompt in prompts))

    return runner.run(together())


def plain(folder: Path, prompt: list[Message], tokens: int) -> str:
    """Return what transformers generates without any engine."""
    return str(loaded(folder)[0].decode(plain_ids(folder, prompt, tokens), skip_special_tokens=True))


@functools.cache
def loaded(folder: Path) -> tuple[Any, Any]:
    return load_tokenizer(folder), load_model(folder).eval()


def plain_ids(folder: Path, prompt: list[Message], tokens: int) -> list[int]:
    tokenizer, model = loaded(folder)
    ids = torch.tensor([prompt_ids(tokenizer, prompt)])
    with torch.inference_mode():
        output = model.generate(ids, max_new_tokens=tokens, do_sample=False)
    return list(output[0, ids.shape[1] :].tolist())


def test_a_greedy_batch_equals_plain_generation(engine: VllmEngine, runner: asyncio.Runner, lively: Path) -> None:
    answers = ask(runner, engine, PROMPTS, Sampling(max_tokens=24))
    assert [answer[0].text for answer in answers] == [plain(lively, prompt, 24) for prompt in PROMPTS]
    assert answers[0][0].tokens == 24 and answers[0][0].finish == "length"


def test_greedy_completions_of_one_prompt_are_all_the_same(engine: VllmEngine, runner: asyncio.Runner) -> None:
    (answer,) = ask(runner, engine, PROMPTS[:1], Sampling(n=3, max_tokens=6))
    assert len(answer) == 3 and len(set(answer)) == 1


def test_a_larger_n_extends_a_smaller_one(engine: VllmEngine, runner: asyncio.Runner) -> None:
    (five,) = ask(runner, engine, PROMPTS[:1], FREE._replace(n=5))
    (last,) = ask(runner, engine, PROMPTS[:1], FREE._replace(seed=6))
    assert len({completion.text for completion in five}) == 5
    assert five[3:] == last


def test_the_rest_of_the_batch_changes_nothing(engine: VllmEngine, runner: asyncio.Runner) -> None:
    alone = [ask(runner, engine, [prompt], FREE)[0] for prompt in PROMPTS]
    assert ask(runner, engine, PROMPTS * 8, FREE) == alone * 8  # 48 sequences in 16 places
    assert engine.usage().batch > 2


def test_generation_ends_before_a_stop_string(engine: VllmEngine, runner: asyncio.Runner) -> None:
    (free,) = ask(runner, engine, [PROMPTS[2]], Sampling(max_tokens=24))
    stop = free[0].text[10:14]
    (stopped,) = ask(runner, engine, [PROMPTS[2]], Sampling(max_tokens=24, stop=(stop,)))
    assert stopped[0].finish == "stop"
    assert stopped[0].text == free[0].text[: free[0].text.index(stop)]


def test_generation_ends_at_any_token_that_ends_a_turn(
    engine: VllmEngine, runner: asyncio.Runner, lively: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = load_tokenizer(lively)
    assert engine._engine._stops == [tokenizer.eos_token_id]
    tokens = plain_ids(lively, PROMPTS[0], 8)
    monkeypatch.setattr(engine._engine, "_stops", [tokens[3]])
    (stopped,) = ask(runner, engine, PROMPTS[:1], Sampling(max_tokens=8))
    assert [completion[:3] for completion in stopped] == [(tokenizer.decode(tokens[:3]), 4, "stop")]


def test_an_assistant_message_at_the_end_is_continued(engine: VllmEngine, runner: asyncio.Runner, lively: Path) -> None:
    prompt = [Message("user", "Count to five."), Message("assistant", "1, 2, 3,")]
    (answer,) = ask(runner, engine, [prompt], Sampling(max_tokens=8))
    assert answer[0].text == plain(lively, prompt, 8)


def test_a_context_overflow_has_its_own_error(engine: VllmEngine, runner: asyncio.Runner) -> None:
    with pytest.raises(ContextOverflow, match="2048"):
        ask(runner, engine, [PROMPTS[0]], Sampling(max_tokens=2048))


def test_the_history_of_a_conversation_is_not_computed_again(
    engine: VllmEngine, runner: asyncio.Runner, lively: Path
) -> None:
    tokenizer = load_tokenizer(lively)
    (answer,) = ask(runner, engine, [LONG], Sampling(max_tokens=12))
    before = engine.usage()
    longer = [*LONG, Message("assistant", answer[0].text), Message("user", "You are in the kitchen.")]
    ask(runner, engine, [longer], Sampling(max_tokens=4))
    after, asked = engine.usage(), len(prompt_ids(tokenizer, longer))
    assert after.prompt - before.prompt == asked
    assert after.cached - before.cached >= len(prompt_ids(tokenizer, LONG)) - 128  # whole blocks only
    assert after.generated - before.generated == 4


def for_model(runner: asyncio.Runner, engine: VllmEngine, folder: Path, name: str) -> VllmEngine | None:
    return runner.run(engine.for_model(Model(folder, name)))


def test_an_adapter_answers_and_its_base_too(
    engine: VllmEngine, runner: asyncio.Runner, lively: Path, adapter: Path
) -> None:
    view = for_model(runner, engine, adapter, "adapter")
    assert view is not None and view.capacity == engine.capacity

    async def both() -> list[list[list[Completion]]]:
        greedy = Sampling(max_tokens=16)
        return await asyncio.gather(
            *(asyncio.gather(*(which.generate(prompt, greedy) for prompt in PROMPTS)) for which in (view, engine))
        )

    adapted, bare = ([answer[0].text for answer in answers] for answers in runner.run(both()))
    assert adapted == [plain(adapter, prompt, 16) for prompt in PROMPTS]
    assert bare == [plain(lively, prompt, 16) for prompt in PROMPTS]
    assert adapted != bare
    runner.run(view.close())
    assert ask(runner, view, PROMPTS[:1], Sampling(max_tokens=4)) and view.usage() == engine.usage()


def test_an_adapter_that_was_trained_again_answers_with_its_new_weights(
    engine: VllmEngine, runner: asyncio.Runner, lively: Path, tmp_path: Path
) -> None:
    """Neither old weights nor keys and values that were computed with them are used, though the path is the same."""
    said = []
    for seed in (2, 3):
        reference = lora(lively, tmp_path / f"reference-{seed}", 5, seed)
        shutil.rmtree(tmp_path / "policy", ignore_errors=True)
        shutil.copytree(reference, tmp_path / "policy")
        view = for_model(runner, engine, tmp_path / "policy", "policy")
        assert view is not None
        answers = ask(runner, view, [*PROMPTS, LONG], Sampling(max_tokens=16))
        said.append([answer[0].text for answer in answers])
        assert said[-1] == [plain(reference, prompt, 16) for prompt in [*PROMPTS, LONG]]
    assert said[0] != said[1]


def test_only_what_fits_is_served(
    engine: VllmEngine, runner: asyncio.Runner, lively: Path, smollm: Path, tmp_path: Path
) -> None:
    eight, nine = (lora(lively, tmp_path / str(rank), rank) for rank in (8, 9))
    models = [(lively, "tiny"), (smollm, "other"), (eight, "fits"), (nine, "too large")]
    served = [for_model(runner, engine, *model) is not None for model in models]
    assert served == [True, False, True, False]


def processes(engine: VllmEngine) -> list[psutil.Process]:
    """The supervisor of the engine's server, and all processes below it."""
    supervisor = psutil.Process(engine._servers.servers[0]._process.pid)
    return [supervisor, *supervisor.children(recursive=True)]


def test_a_cancelled_request_affects_no_other(engine: VllmEngine, runner: asyncio.Runner) -> None:
    alone = ask(runner, engine, [PROMPTS[1]], FREE)

    async def one_goes() -> list[Completion]:
        leaving = asyncio.create_task(engine.generate(PROMPTS[0], Sampling(n=4, temperature=1.0, max_tokens=1900)))
        staying = asyncio.create_task(engine.generate(PROMPTS[1], FREE))
        await asyncio.sleep(0.2)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        return await staying

    assert [runner.run(one_goes())] == alone
    before = [sum(process.cpu_times()[:2]) for process in processes(engine)]
    time.sleep(1)
    after = [sum(process.cpu_times()[:2]) for process in processes(engine)]
    assert sum(after) - sum(before) < 0.5  # the server does not work on what was cancelled


def test_many_long_prompts_with_seeds_are_answered(runner: asyncio.Runner, engine: VllmEngine) -> None:
    prompts = [[Message("user", f"{number} " * 400)] for number in range(12)]
    sampling = Sampling(temperature=1.0, max_tokens=4, seed=1)
    assert all(completion.tokens > 0 for (completion,) in ask(runner, engine, prompts, sampling))


def test_a_server_that_loses_its_engine_core_says_so_and_ends(
    engine: VllmEngine, runner: asyncio.Runner, capfd: pytest.CaptureFixture[str]
) -> None:
    """The last test of this module."""
    before = processes(engine)
    (core,) = [process for process in before if "EngineCore" in process.name()]

    async def killed() -> None:
        waiting = asyncio.create_task(engine.generate(PROMPTS[0], Sampling(max_tokens=1900)))
        await asyncio.sleep(0.2)
        core.kill()
        with pytest.raises(MachineryError, match="ended: it was killed"):
            await waiting
        await engine.close()

    runner.run(killed())
    assert not [process for process in before if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    with pytest.raises(MachineryError, match="closed"):
        ask(runner, engine, PROMPTS[:1], FREE)
    out, err = capfd.readouterr()
    (url,) = {line.split()[0] for line in out.splitlines()}  # our own notices; the server writes to its log
    assert url.startswith("http://127.0.0.1:") and err == ""
