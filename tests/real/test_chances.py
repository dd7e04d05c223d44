"""The chances of an action's first word, and texts as vectors, on a tiny model: equal to what its weights say."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sandcli.engine_settings import EngineSettings
from sandcli.engines.base import Model
from sandcli.engines.embedding import by_model
from sandcli.engines.tokens import load_tokenizer, prompt_ids
from sandcli.engines.transformers import TransformersEngine
from sandcli.errors import UsageError
from sandcli.messages import Message
from sandcli.method.world_knowledge import mixed
from sandcli.stages.informing import chances

WORDS = ["deactivate", "go", "look", "take"]
TURN = [Message("user", "Find the lamp."), Message("assistant", "Thought: It may be here.\nAction:")]


@pytest.fixture(scope="module")
def reference(tiny: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()


def test_mixture_is_that_of_the_models_own_logits(tiny: Path, reference: Any) -> None:
    async def asked() -> dict[str, float]:
        engine = TransformersEngine(Model(tiny, ""), EngineSettings())
        try:
            return await chances(engine, TURN, WORDS)
        finally:
            await engine.close()

    found, tokenizer = asyncio.run(asked()), load_tokenizer(tiny)
    prompt = prompt_ids(tokenizer, TURN)
    first = [tokenizer(f" {word}", add_special_tokens=False)["input_ids"][0] for word in WORDS]
    with torch.inference_mode():
        logits = reference(torch.tensor([prompt])).logits[0, -1].double()
    assert list(found.values()) == pytest.approx(torch.softmax(logits, -1)[first].tolist(), rel=1e-3)
    among = torch.softmax(logits[first], -1).tolist()  # of these words alone
    wanted = {word: 0.7 * own for word, own in zip(WORDS, among, strict=True)}
    wanted["take"] += 0.3 * 0.25
    wanted["go"] += 0.3 * 0.75
    assert mixed(found, {"take": 0.25, "go": 0.75}, 0.7) == pytest.approx(wanted, rel=1e-3)


def test_vector_of_a_text_is_its_mean_hidden_state(tiny: Path, reference: Any) -> None:
    texts = ["a lamp", "a longer text about the lamp in the hall"]
    found, tokenizer = by_model(tiny)(texts), AutoTokenizer.from_pretrained(tiny)
    for text, vector in zip(texts, found, strict=True):
        with torch.inference_mode():
            states = reference.model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy()
        mean = states.mean(0)
        assert vector == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)


def test_folder_that_holds_no_such_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(UsageError, match=r"retrieval\.embedding .* cannot be loaded"):
        by_model(tmp_path)
