"""What is trained on if there is a preamble: its turns are read, never learned."""

from typing import Any

import pytest

from sandcli.agent.conversation import conversation
from sandcli.engines.tokens import encode, prompt_ids
from sandcli.messages import Message
from sandcli.training.rows import IGNORED, training_row
from tests.families import Family, every_family, step, trajectory

ONE_MESSAGE = [Message("user", "You act.\n\nAn example: Action: fly\n")]
LITERATURE = [
    Message("user", "You act. Answer OK."),
    Message("assistant", "OK"),
    Message("user", "An example. Your task is to fly."),
    Message("assistant", "Thought: I fly.\nAction: fly"),
    Message("user", "Observation: You fly."),
    Message("assistant", "Action: land"),
]
STEPS = [step("I look.", "look", "A hall."), step("", "go to kitchen", "You go."), step("Hm?", "", "Invalid.")]


@every_family
@pytest.mark.parametrize("preamble", [LITERATURE, ONE_MESSAGE, LITERATURE[:2], [*LITERATURE[:2], *ONE_MESSAGE], []])
def test_row_is_every_prompt_with_its_answer_and_no_loss_on_the_preamble(
    family: Family, tokenizers: dict[str, Any], preamble: list[Message]
) -> None:
    tokenizer, expert = tokenizers[family.name], trajectory(STEPS)
    row = training_row(tokenizer, preamble, expert)
    said = ["Thought: I look.\nAction: look", "Action: go to kitchen", "Hm?"]
    labels = [IGNORED] * len(row.labels)
    for number, text in enumerate(said):
        prompt = prompt_ids(tokenizer, conversation(preamble, expert.instruction, STEPS[:number]))
        answer = encode(tokenizer, text)
        end = len(prompt) + len(answer) + 1  # with the token that ends the turn
        assert row.input_ids[: end - 1] == prompt + answer
        labels[len(prompt) : end] = row.input_ids[len(prompt) : end]
    assert row.labels == labels
