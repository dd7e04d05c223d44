"""Chat templates, token by token: the families' texts, which tokens are trained, and refused templates."""

import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from sandcli.agent.conversation import conversation, training_messages
from sandcli.engines.configs import stop_ids
from sandcli.engines.templates import render
from sandcli.engines.tokens import encode, load_tokenizer, prompt_ids
from sandcli.errors import UsageError
from sandcli.messages import Message
from sandcli.settings import AgentSettings
from sandcli.training.config import TrainingConfig
from sandcli.training.rows import IGNORED, tokenise, training_row
from sandcli.training_settings import ComputeSettings, TrainingSettings
from tests.families import HOOKS, LLAMA, QWEN, SMOLLM2, Family, every_family, publish, step, trained_spans, trajectory

PREAMBLE = [Message("system", "You act.")]
AIMS = TrainingSettings(learning_rate=1e-3, epochs=1, batch_size=1)

SHORT = [
    step("I look.", "look", "A hall.\n"),
    step("Hm?", "", AgentSettings().invalid_message),
    step("", "go to kitchen", "\tYou are there."),
]

CHATML_TEXT = (
    "<|im_start|>system\nYou act.<|im_end|>\n"
    "<|im_start|>user\nBring the lamp.<|im_end|>\n"
    "<|im_start|>assistant\nThought: I look.\nAction: look<|im_end|>\n"
    "<|im_start|>user\nObservation: A hall.\n<|im_end|>\n"
    "<|im_start|>assistant\nHm?<|im_end|>\n"
    "<|im_start|>user\nObservation: Invalid format. Answer with 'Action:' and one action.<|im_end|>\n"
    "<|im_start|>assistant\nAction: go to kitchen<|im_end|>\n"
)
LLAMA_TEXT = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
    "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\nYou act.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nBring the lamp.<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nThought: I look.\nAction: look<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nObservation: A hall.<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nHm?<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n"
    "Observation: Invalid format. Answer with 'Action:' and one action.<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nAction: go to kitchen<|eot_id|>"
)
LAST = {
    "<|im_end|>": "<|im_start|>user\nObservation: \tYou are there.<|im_end|>\n<|im_start|>assistant\n",
    "<|eot_id|>": "<|start_header_id|>user<|end_header_id|>\n\nObservation: \tYou are there.<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
}


@every_family
def test_the_text_of_a_conversation(family: Family, tokenizers: dict[str, Any]) -> None:
    tokenizer = tokenizers[family.name]
    expected = LLAMA_TEXT if family is LLAMA else CHATML_TEXT
    messages = conversation(PREAMBLE, "Bring the lamp.", SHORT)
    assert render(tokenizer, messages[:-1], answer=False) == expected
    assert render(tokenizer, messages, answer=True) == expected + LAST[family.end]


@pytest.mark.parametrize(
    ("family", "system"),
    [
        (
            SMOLLM2,
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n",
        ),
        (
            LLAMA,
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
            "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|>",
        ),
        (
            QWEN,
            "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n",
        ),
    ],
)
def test_the_publishers_system_message_is_used_only_without_our_own(
    family: Family, system: str, tokenizers: dict[str, Any]
) -> None:
    tokenizer = tokenizers[family.name]
    assert render(tokenizer, [Message("user", "Hm?")], answer=False).startswith(system)
    ours = render(tokenizer, [Message("system", "You act."), Message("user", "Hm?")], answer=False)
    assert "You act." in ours and system not in ours and "helpful" not in ours


@pytest.mark.parametrize("family", [LLAMA, QWEN])
def test_the_families_templates_equal_the_published_ones(family: Family, tokenizers: dict[str, Any]) -> None:
    tokenizer = tokenizers[family.name]
    assert family.published is not None
    published = (resources.files("trl") / "chat_templates" / family.published).read_text()
    messages = conversation([Message("system", " You act.\n")], " Bring the lamp. ", SHORT)
    for part in (messages, messages[1:], messages[:-1]):
        ours = [render(tokenizer, part, answer) for answer in (False, True)]
        tokenizer.chat_template = published
        theirs = [render(tokenizer, part, answer) for answer in (False, True)]
        tokenizer.chat_template = family.template
        assert ours == theirs


@pytest.mark.real
def test_the_embedded_models_template_is_its_familys(smollm: Path, tokenizers: dict[str, Any]) -> None:
    messages = conversation(PREAMBLE, " Bring the lamp. ", SHORT)
    for part in (messages, messages[1:], messages[:-1]):
        for answer in (False, True):
            ours = render(tokenizers[SMOLLM2.name], part, answer)
            assert render(load_tokenizer(smollm), part, answer) == ours


@every_family
def test_the_loss_falls_on_the_agents_turns_and_their_end_token_only(
    family: Family, tokenizers: dict[str, Any]
) -> None:
    tokenizer = tokenizers[family.name]
    messages = training_messages(PREAMBLE, trajectory(SHORT))
    row = tokenise(tokenizer, messages)
    assert [tokenizer.decode(span) for span in trained_spans(row)] == [
        f"Thought: I look.\nAction: look{family.end}",
        f"Hm?{family.end}",
        f"Action: go to kitchen{family.end}",
    ]
    assert all(label in (IGNORED, token) for token, label in zip(row.input_ids, row.labels, strict=True))
    assert row.input_ids == encode(tokenizer, render(tokenizer, messages, answer=False).removesuffix("\n"))


def test_llamas_begin_token_occurs_once(tokenizers: dict[str, Any]) -> None:
    tokenizer = tokenizers[LLAMA.name]
    begin = tokenizer.bos_token_id
    assert tokenizer("Hm?")["input_ids"][0] == begin  # what would put a second one there
    ids = prompt_ids(tokenizer, conversation(PREAMBLE, "Bring the lamp.", SHORT))
    row = tokenise(tokenizer, training_messages(PREAMBLE, trajectory(SHORT)))
    assert ids[0] == row.input_ids[0] == begin
    assert ids.count(begin) == row.input_ids.count(begin) == 1


@every_family
def test_the_end_token_that_is_trained_on_ends_a_turn_at_inference(
    family: Family, families: dict[str, Path], tokenizers: dict[str, Any]
) -> None:
    tokenizer = tokenizers[family.name]
    stops = stop_ids(families[family.name], tokenizer)
    assert tokenise(tokenizer, training_messages(PREAMBLE, trajectory(SHORT))).labels[-1] in stops
    assert stops == set(tokenizer.convert_tokens_to_ids(list(family.stops)))


def spoiled(folder: Path, template: str, **settings: Any) -> Path:
    """Write SmolLM2's tokenizer with another template."""
    return publish(SMOLLM2._replace(template=template, **settings), folder)


CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
OPEN = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


@pytest.mark.parametrize(
    "date",
    [
        "{{ strftime_now('%d %b %Y') }}",
        "{% if date_string is defined %}{{ date_string }}{% else %}{{ strftime_now('%d %b %Y') }}{% endif %}",
        "{% macro date() %}{{ strftime_now('%d %b %Y') }}{% endmacro %}{{ date() }}",
    ],
)
def test_a_prompt_is_the_same_on_another_day(tmp_path: Path, date: str) -> None:
    tokenizer = load_tokenizer(spoiled(tmp_path, f"Today is {date}.{CHATML}{OPEN}"))
    assert render(tokenizer, [Message("user", "Hm?")], answer=False).startswith("Today is 26 Jul 2024.<|im_start|>")


def test_a_template_that_refuses_a_system_message_is_refused(tmp_path: Path) -> None:
    refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    folder = spoiled(tmp_path, refusal + CHATML + OPEN)
    with pytest.raises(UsageError, match=f"{folder} refuses a conversation: System role not supported") as raised:
        load_tokenizer(folder)
    assert "accepts a system message" in raised.value.fix


def test_a_preamble_that_the_template_refuses_is_refused(tmp_path: Path) -> None:
    refusal = "{% if messages[0].content == 'Hi.' %}{{ raise_exception('Be formal') }}{% endif %}"
    tokenizer = load_tokenizer(spoiled(tmp_path, refusal + CHATML + OPEN))
    with pytest.raises(UsageError, match="refuses a conversation: Be formal") as raised:
        training_row(tokenizer, [Message("user", "Hi."), Message("assistant", "OK")], trajectory(SHORT))
    assert "change that (agent.preamble)" in raised.value.fix


def test_a_template_that_is_broken_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="refuses a conversation: "):
        load_tokenizer(spoiled(tmp_path, CHATML + "{% if %}"))


@pytest.mark.parametrize(
    "content",
    [
        "{{ m.content.split('</think>')[-1] if not loop.last else m.content }}",
        "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}",
    ],
)
def test_a_template_that_drops_earlier_thoughts_is_refused(tmp_path: Path, content: str) -> None:
    folder = spoiled(tmp_path, CHATML.replace("{{ m.content }}", content) + OPEN)
    steps = [step("<think>Hm.</think>I look.", "look", "A hall."), step("", "look", "A hall.")]
    with pytest.raises(UsageError, match="rewrites earlier turns"):
        tokenise(load_tokenizer(folder), training_messages(PREAMBLE, trajectory(steps)))


def test_a_template_without_clear_borders_between_turns_is_refused(tmp_path: Path) -> None:
    together = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}"
    tokenizer = load_tokenizer(spoiled(tmp_path, together + "{% if add_generation_prompt %}assistant: {% endif %}"))
    with pytest.raises(UsageError, match="not the tokens of the whole") as raised:
        tokenise(tokenizer, [Message("user", "Where?"), Message("assistant", "the door")])
    assert "special tokens" in raised.value.fix


@pytest.mark.slow
@pytest.mark.parametrize(("end", "known"), [("<|endoftext|>", "'<|endoftext|>'"), (None, "nowhere")])
def test_a_model_that_would_not_stop_where_its_turns_end_is_not_trained(
    tmp_path: Path, end: str | None, known: str
) -> None:
    """This happens with base models whose tokenizer has a chat template, but another end token."""
    from sandcli.training.trainer import fit  # it takes seconds to import

    folder = spoiled(tmp_path, CHATML + OPEN)
    (folder / "generation_config.json").unlink()
    (folder / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 2048}')
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"eos_token": end}))
    spec = TrainingConfig(folder, PREAMBLE, AIMS, ComputeSettings(), 0, tmp_path / "work", tmp_path / "log.jsonl")
    what = f"ends a turn with '<|im_end|>', and the model stops at {known}"
    with pytest.raises(UsageError, match=re.escape(what)) as raised:  # there are no weights to be loaded, either
        fit(spec, [trajectory(SHORT)], HOOKS)
    assert "generation_config.json" in raised.value.fix
