"""The real model, and a tiny one of the same family for what needs training to be fast."""

from pathlib import Path

import pytest

from sandcli.models import EMBEDDED, locate


@pytest.fixture(scope="session")
def smollm() -> Path:
    """The embedded model, converted on first use."""
    return locate(EMBEDDED)


@pytest.fixture(scope="session")
def tiny(smollm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A randomly initialised Llama with the embedded model's tokenizer: 1.6 million weights."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = AutoTokenizer.from_pretrained(smollm)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
