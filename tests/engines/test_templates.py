"""Chat templates of models that think: they are asked not to, and every turn stays as it was generated."""

from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from sandcli.agent.conversation import conversation, training_messages
from sandcli.engines.base import without_thought
from sandcli.engines.templates import refuse_template, render
from sandcli.engines.tokens import load_tokenizer, prompt_ids
from sandcli.errors import UsageError
from sandcli.messages import Message
from sandcli.training.rows import tokenise
from tests.families import QWEN, publish, step, trained_spans, trajectory

PREAMBLE = [Message("system", "You act.")]

EMPTY = "<think>\n\n</think>\n\n"
STEPS = [step("I look.", "look", "A hall."), step("", "go to kitchen", "You are there."), step("Hm?", "", "No.")]


def published(name: str) -> str:
    """A template that trl ships."""
    return (resources.files("trl") / "chat_templates" / f"{name}.jinja").read_text()


def tokenizer(folder: Path, template: str) -> Any:
    return load_tokenizer(publish(QWEN._replace(template=template), folder))


def test_qwen3_is_asked_not_to_think_and_every_turn_begins_the_same_way(tmp_path: Path) -> None:
    text = render(tokenizer(tmp_path, published("qwen3")), conversation(PREAMBLE, "Bring it.", STEPS[:2]), answer=True)
    turns = text.split("<|im_start|>assistant\n")[1:]
    assert [turn.split("<|im_end|>")[0] for turn in turns] == [
        f"{EMPTY}Thought: I look.\nAction: look",
        f"{EMPTY}Action: go to kitchen",
        EMPTY,
    ]


@pytest.mark.parametrize("name", ["qwen3", "qwen3_5_think", "qwen3_5_nothink", "qwen3_6", "qwen3_8", "nemotron_3_nano"])
def test_thinking_models_read_at_inference_what_they_were_trained_on(tmp_path: Path, name: str) -> None:
    loaded = tokenizer(tmp_path, published(name))
    row = tokenise(loaded, training_messages(PREAMBLE, trajectory(STEPS)))
    assert [loaded.decode(span) for span in trained_spans(row)] == [
        "Thought: I look.\nAction: look<|im_end|>",
        "Action: go to kitchen<|im_end|>",
        "Hm?<|im_end|>",
    ]
    for number in range(3):
        prompt = prompt_ids(loaded, conversation(PREAMBLE, "Bring the lamp.", STEPS[:number]))
        assert row.input_ids[: len(prompt)] == prompt


def test_turns_that_mention_the_end_of_a_thought_stay_whole(tmp_path: Path) -> None:
    said = [Message("system", "s"), Message("user", "u"), Message("assistant", "a</think>b"), Message("user", "o")]
    assert f"{EMPTY}a</think>b<|im_end|>" in render(tokenizer(tmp_path, published("qwen3")), said, answer=True)


@pytest.mark.parametrize("name", ["deepseek_r1_distill", "deepseekv3"])
def test_template_that_always_thinks_is_refused(tmp_path: Path, name: str) -> None:
    folder = publish(QWEN._replace(template=published(name)), tmp_path)
    with pytest.raises(UsageError, match=f"template of {folder} starts every turn with a thought and has no switch"):
        load_tokenizer(folder)


def test_template_that_changes_earlier_turns_is_refused_by_every_stage_that_loads_it(tmp_path: Path) -> None:
    folder = publish(QWEN._replace(template=published("gptoss")), tmp_path)
    with pytest.raises(UsageError, match="rewrites earlier turns"):
        load_tokenizer(folder)


def test_templates_without_a_switch_are_left_as_they_are(tmp_path: Path) -> None:
    loaded = tokenizer(tmp_path, QWEN.template)
    refuse_template(loaded)
    assert "think" not in render(loaded, conversation(PREAMBLE, "Bring it.", STEPS), answer=True)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<think>\nI look first.\n</think>\n\nThought: I look.\nAction: look", "Thought: I look.\nAction: look"),
        ("\n<think></think>Action: look", "Action: look"),
        ("<think>\nI look first", ""),
        (" Thought: <think>Hm</think>", " Thought: <think>Hm</think>"),
        (" because it is near", " because it is near"),
    ],
)
def test_thought_before_a_completion_is_removed(text: str, left: str) -> None:
    assert without_thought(text) == left
