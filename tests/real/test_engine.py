"""The embedded engine on the real small model: equal to plain generation, whatever else is in the batch."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from sandcli.engine_settings import EngineSettings
from sandcli.engines.base import Completion, Model, Sampling
from sandcli.engines.ragged import KeyValues
from sandcli.engines.tokens import load_tokenizer, prompt_ids
from sandcli.engines.transformers import TransformersEngine
from sandcli.errors import ContextOverflow, MachineryError, PrerequisiteError, UsageError
from sandcli.messages import Message

pytestmark = pytest.mark.real

PROMPTS = [
    [Message("system", "You answer in a few words."), Message("user", f"Name {things}.")]
    for things in ("a colour", "two animals that live in the sea", "three tools of a carpenter and what each is for")
]


@pytest.fixture(scope="module")
def engine(smollm: Path) -> Iterator[TransformersEngine]:
    loaded = TransformersEngine(Model(smollm, ""), EngineSettings(batch=8, cache_gib=1.0))
    yield loaded
    asyncio.run(loaded.close())


@pytest.fixture(scope="module")
def reference(smollm: Path) -> Any:
    """The model as transformers itself runs it."""
    return AutoModelForCausalLM.from_pretrained(smollm, dtype=torch.float32).eval()


def ask(engine: TransformersEngine, prompts: list[list[Message]], sampling: Sampling) -> list[list[Completion]]:
    async def together() -> list[list[Completion]]:
        return await asyncio.gather(*(engine.generate(prompt, sampling) for prompt in prompts))

    return asyncio.run(together())


def plain(engine: TransformersEngine, reference: Any, prompt: list[Message], tokens: int) -> str:
    ids = torch.tensor([prompt_ids(engine._tokenizer, prompt)])
    with torch.inference_mode():
        output = reference.generate(ids, max_new_tokens=tokens, do_sample=False)
    return str(engine._tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True))


def test_a_greedy_batch_equals_plain_generation(engine: TransformersEngine, reference: Any) -> None:
    answers = ask(engine, PROMPTS, Sampling(max_tokens=24))
    assert [answer[0].text for answer in answers] == [plain(engine, reference, prompt, 24) for prompt in PROMPTS]


def test_a_long_prompt_is_computed_in_pieces_while_others_decode(engine: TransformersEngine, reference: Any) -> None:
    long = [Message("user", "Read this: " + "the red apple is in the bowl. " * 150 + "What is in the bowl?")]
    answers = ask(engine, [PROMPTS[2], long], Sampling(max_tokens=24))
    assert [answer[0].text for answer in answers] == [plain(engine, reference, p, 24) for p in (PROMPTS[2], long)]


def test_a_shared_prefix_is_computed_once(engine: TransformersEngine) -> None:
    shared = Message("system", "You are a gardener who knows every plant. " * 20)
    prompts = [[shared, Message("user", f"What is plant {number}?")] for number in range(4)]
    before = engine.usage()
    ask(engine, prompts, Sampling(max_tokens=2))
    after = engine.usage()
    beginning = len(prompt_ids(engine._tokenizer, [shared, Message("user", "What is plant")])) - 10
    assert after.prompt - before.prompt - (after.cached - before.cached) < beginning + 4 * 40


def test_an_internal_error_fails_the_request_and_the_next_one_works(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("out of order")

    with monkeypatch.context() as patch:
        patch.setattr(engine._model, "forward", broken)
        with pytest.raises(MachineryError, match="RuntimeError: out of order"):
            ask(engine, PROMPTS[:1], Sampling(max_tokens=2))
    assert ask(engine, PROMPTS[:1], Sampling(max_tokens=2))[0][0].tokens > 0


def test_a_closed_engine_says_so(tiny: Path) -> None:
    closed = TransformersEngine(Model(tiny, ""), EngineSettings())

    async def waits() -> None:
        waiting = asyncio.create_task(closed.generate(PROMPTS[0], Sampling(max_tokens=1500)))
        await asyncio.sleep(0.2)
        await closed.close()
        with pytest.raises(MachineryError, match="closed"):
            await waiting
        with pytest.raises(MachineryError, match="closed"):
            await closed.generate(PROMPTS[0], Sampling())

    asyncio.run(waits())


@pytest.mark.parametrize("known", [1, 255, 256, 300])
def test_the_cache_gives_copies(known: int) -> None:
    owner = KeyValues(torch.arange(2 * 512.0).reshape(1, 2, 1, 512, 1), 512)
    taken = owner.copy(known)
    taken.grown(1).states[:, :, :, known] = -1.0
    taken.states[:, :, :, 0] = -2.0
    assert owner.states[0, 0, 0, :2, 0].tolist() == [0.0, 1.0]
    assert -1.0 not in owner.states
    assert taken.states.shape[3] % 256 == 0


def test_a_cancelled_request_affects_no_other(engine: TransformersEngine) -> None:
    async def one_leaves() -> list[Completion]:
        gone = asyncio.create_task(engine.generate(PROMPTS[2], Sampling(max_tokens=400)))
        stays = asyncio.create_task(engine.generate(PROMPTS[0], Sampling(max_tokens=12)))
        await asyncio.sleep(0.3)
        gone.cancel()
        return await stays

    assert asyncio.run(one_leaves()) == ask(engine, PROMPTS[:1], Sampling(max_tokens=12))[0]


def test_requests_beyond_the_capacity_get_their_own_answers(engine: TransformersEngine) -> None:
    answers = ask(engine, PROMPTS * 5, Sampling(max_tokens=12))
    assert answers == answers[:3] * 5


def test_a_larger_n_extends_a_smaller_one(engine: TransformersEngine) -> None:
    (five,) = ask(engine, PROMPTS[:1], Sampling(n=5, temperature=1.0, max_tokens=12, seed=3))
    (last,) = ask(engine, PROMPTS[:1], Sampling(n=2, temperature=1.0, max_tokens=12, seed=6))
    assert len({completion.text for completion in five}) > 1
    assert five[3:] == last


def test_the_history_of_a_conversation_is_not_computed_again(engine: TransformersEngine) -> None:
    (answer,) = ask(engine, PROMPTS[:1], Sampling(max_tokens=12))
    before = engine.usage()
    longer = [*PROMPTS[0], Message("assistant", answer[0].text), Message("user", "Another.")]
    ask(engine, [longer], Sampling(max_tokens=4))
    after = engine.usage()
    history = len(prompt_ids(engine._tokenizer, PROMPTS[0]))
    assert after.cached - before.cached >= history


def test_an_assistant_message_at_the_end_is_continued(engine: TransformersEngine) -> None:
    prompt = [Message("user", "Count to five."), Message("assistant", "1, 2, 3,")]
    (answer,) = ask(engine, [prompt], Sampling(max_tokens=4))
    assert answer[0].text.strip().startswith("4")


def test_generation_ends_before_a_stop_string(engine: TransformersEngine) -> None:
    (free,) = ask(engine, [PROMPTS[2]], Sampling(max_tokens=24))
    stop = free[0].text.split()[2]
    (stopped,) = ask(engine, [PROMPTS[2]], Sampling(max_tokens=24, stop=(stop,)))
    assert stopped[0].finish == "stop"
    assert stopped[0].text == free[0].text[: free[0].text.index(stop)]


def test_a_context_overflow_has_its_own_error(engine: TransformersEngine) -> None:
    with pytest.raises(ContextOverflow, match="8192"):
        ask(engine, [[Message("user", "word " * 9000)]], Sampling(max_tokens=4))


def test_a_model_that_does_not_fit_into_memory_is_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=2**20))
    with pytest.raises(PrerequisiteError, match=r"needs 0\.0 GiB in float32, and 0\.0 GiB are free"):
        TransformersEngine(Model(tiny, ""), EngineSettings())


def test_a_truncated_weights_file_is_named(tiny: Path, tmp_path: Path) -> None:
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    os.truncate(tmp_path / "model.safetensors", 1000)
    with pytest.raises(UsageError, match=r"model\.safetensors is damaged or incomplete"):
        TransformersEngine(Model(tmp_path, ""), EngineSettings())


def test_a_model_with_sliding_windows_is_refused(tiny: Path, tmp_path: Path) -> None:
    config = Qwen2Config(
        vocab_size=len(load_tokenizer(tiny)),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        use_sliding_window=True,
        sliding_window=16,
        max_window_layers=1,
    )
    Qwen2ForCausalLM(config).save_pretrained(tmp_path)
    load_tokenizer(tiny).save_pretrained(tmp_path)
    with pytest.raises(PrerequisiteError, match="cannot run qwen2: it has layers of another kind than full attention"):
        TransformersEngine(Model(tmp_path, ""), EngineSettings())


def test_a_model_without_a_chat_template_is_refused(tiny: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in tiny.iterdir():
        if file.name != "chat_template.jinja":
            (bare / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UsageError, match="no chat template"):
        TransformersEngine(Model(bare, ""), EngineSettings())
