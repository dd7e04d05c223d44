"""The model families of the paper's policies: their chat templates and end tokens, with small tokenizers.

The templates produce the same text as the published ones for conversations without tools. The tokenizers split text
like the families' own, which matters at the borders of turns, but have a few merges instead of 100,000. At the end are
helpers that make trajectories and read training rows.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from sandcli.records import Step, Task, Trajectory
from sandcli.training.config import Hooks
from sandcli.training.rows import IGNORED, TrainingRow

HOOKS = Hooks(lambda size: None, lambda total, done: None, lambda: None, lambda: False)
"""A training that tells nobody how far it is."""

_CHATML = (
    "{%% if messages[0].role != 'system' %%}<|im_start|>system\n%s<|im_end|>\n{%% endif %%}"
    "{%% for m in messages %%}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%% endfor %%}"
    "{%% if add_generation_prompt %%}{{ '<|im_start|>assistant\n' }}{%% endif %%}"
)
_LLAMA = (
    "{% macro head(role) %}{{ '<|start_header_id|>' + role + '<|end_header_id|>\n\n' }}{% endmacro %}"
    "{% set given = messages[0].role == 'system' %}"
    "{{ bos_token + head('system') }}{{ 'Cutting Knowledge Date: December 2023\n' }}"
    "{{ 'Today Date: ' + (date_string or '26 Jul 2024') + '\n\n' }}"
    "{% if given %}{{ messages[0].content | trim }}{% endif %}<|eot_id|>"
    "{% for m in messages[1 if given else 0:] %}{{ head(m.role) + m.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ head('assistant') }}{% endif %}"
)

_SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,%d}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""Matches words with a leading character, digits, punctuation with the line ends after it, and white space."""


class Family(NamedTuple):
    """The properties of a family. `stops` are its published end tokens; `end` is the one that its template writes."""

    name: str
    template: str
    specials: tuple[str, ...]
    bos: str | None
    end: str
    stops: tuple[str, ...]
    published: str | None
    """The file of the published template, if trl has it."""


SMOLLM2 = Family(
    name="SmolLM2",
    template=_CHATML % "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
    specials=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    bos="<|im_start|>",
    end="<|im_end|>",
    stops=("<|im_end|>",),
    published=None,
)
LLAMA = Family(
    name="Llama-3.1",
    template=_LLAMA,
    specials=(
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eom_id|>",
        "<|eot_id|>",
    ),
    bos="<|begin_of_text|>",
    end="<|eot_id|>",
    stops=("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
    published="llama3_1.jinja",
)
QWEN = Family(
    name="Qwen2.5",
    template=_CHATML % "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    specials=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    bos=None,
    end="<|im_end|>",
    stops=("<|im_end|>", "<|endoftext|>"),
    published="qwen2_5.jinja",
)
FAMILIES = (SMOLLM2, LLAMA, QWEN)
every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def publish(family: Family, folder: Path) -> Path:
    """Write a model folder of the family without weights."""
    tokenizer = _tokenizer(family)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=family.bos, eos_token=family.end, chat_template=family.template
    )
    fast.save_pretrained(folder)
    stops = [tokenizer.token_to_id(token) for token in family.stops]
    published = {"eos_token_id": stops if len(stops) > 1 else stops[0]}
    (folder / "generation_config.json").write_text(json.dumps(published))
    return folder


def _tokenizer(family: Family) -> Any:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = _splitting(family)
    if family is QWEN:
        tokenizer.normalizer = normalizers.NFC()
    texts = [
        "Thought: I go on to the door.\n\nAction: open the door\nObservation: The door is open.\n" * 3,
        "1234 " * 9,
    ]
    specials = [AddedToken(token, special=True) for token in family.specials]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=specials,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if family is LLAMA:  # the others add nothing to a text
        known = [(family.specials[0], tokenizer.token_to_id(family.specials[0]))]
        tokenizer.post_processor = TemplateProcessing(single=f"{family.specials[0]} $A", special_tokens=known)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _splitting(family: Family) -> Any:
    if family is SMOLLM2:
        digits, words = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
        return pre_tokenizers.Sequence([digits, words])
    pattern = Regex(_SPLIT % (3 if family is LLAMA else 1))
    raw = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(pattern, "isolated"), raw])


def trajectory(steps: Sequence[Step], instruction: str = "Bring the lamp.") -> Trajectory:
    """Make an episode of these steps."""
    task = Task(name="fetch", variation=0)
    return Trajectory(
        id="a",
        env="toy",
        task=task,
        instruction=instruction,
        steps=list(steps),
        reward=1.0,
        success=True,
        source="test",
    )


def step(thought: str, action: str, observation: str) -> Step:
    """Make a step."""
    return Step(thought=thought, action=action, observation=observation, score=0.0)


def trained_spans(row: TrainingRow) -> list[list[int]]:
    """The tokens with loss, a list for each unbroken stretch of them."""
    spans: list[list[int]] = [[]]
    for label in row.labels:
        if label != IGNORED:
            spans[-1].append(label)
        elif spans[-1]:
            spans.append([])
    return spans
