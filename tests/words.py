"""A model folder without weights: a tokenizer that knows a few words, and a config with 512 positions."""

import json
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

KNOWN = ["?", "<system>", "<user>", "<assistant>", "you", "act", "find", "the", "lamp", "Thought:"]
"""The words, by their tokens."""


def publish(folder: Path, positions: int = 512) -> Path:
    """Write the folder."""
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(KNOWN)}, unk_token="?"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?")
    fast.chat_template = (
        "{% for m in messages %}<{{ m.role }}> {{ m.content }} {% endfor %}"
        "{% if add_generation_prompt %}<assistant> {% endif %}"
    )
    fast.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": positions}))
    return folder
