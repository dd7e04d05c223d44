"""A run with ETO's protocol on recorded rows: what the model is trained on and asked, token by token."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import sandcli
from sandcli.agent.conversation import turn_messages
from sandcli.config import Scalar
from sandcli.core.artifact import StageName
from sandcli.engines.templates import render
from sandcli.engines.tokens import Prompts, encode, load_tokenizer
from sandcli.errors import Exit
from sandcli.messages import Message
from sandcli.new_run import start_run
from sandcli.records import Trajectory
from sandcli.training.rows import IGNORED, TrainingRow
from tests.helpers import context, perform

PREAMBLE = [Message("user", "You act in a world. Reply with OK."), Message("assistant", "OK")]

STAGES: tuple[StageName, ...] = ("sample", "eval")

Row = dict[str, Any]


def with_preamble(row: Row) -> Row:
    """A row in ETO's form with another preamble in place of its own two messages."""
    begin = [{"from": who, "value": m.content} for who, m in zip(("human", "gpt"), PREAMBLE, strict=True)]
    return {**row, "conversations": [*begin, *row["conversations"][2:]]}


def shortened(model: Path, rows: Sequence[Row], root: Path, **settings: Scalar) -> Path:
    """A run with D_exp from rows and ETO's protocol, in which episodes and turns are short."""
    small: dict[str, Scalar] = {"env.step_limit": 2, "agent.max_tokens": 8, "sample.n": 2, "run.workers": 1}
    training: dict[str, Scalar] = {"sft.epochs": 1, "eval.splits": ["seen"], "eval.models": ["sft"]}
    chosen = {"model.base": str(model), **small, **training, **{k.replace("__", "."): v for k, v in settings.items()}}
    start_run(root, None, chosen, None, "eto")
    source = root / "rows.json"
    source.write_text(json.dumps([with_preamble(row) for row in rows]))
    assert sandcli.collect(root, source=source).exit is Exit.DONE
    return root


@contextmanager
def noted_prompts() -> Iterator[list[list[int]]]:
    """The token ids of everything that the embedded engine is asked."""
    asked: list[list[int]] = []
    original = Prompts.fitting_ids

    def fitting_ids(self: Prompts, messages: Sequence[Message], max_tokens: int) -> list[int]:
        asked.append(original(self, messages, max_tokens))
        return asked[-1]

    with patch.object(Prompts, "fitting_ids", fitting_ids):
        yield asked


@contextmanager
def noted_rows() -> Iterator[list[TrainingRow]]:
    """Every row that is trained on."""
    from sandcli.training import rows

    made: list[TrainingRow] = []
    original = rows.training_row

    def training_row(tokenizer: Any, preamble: Sequence[Message], trajectory: Trajectory) -> TrainingRow:
        made.append(original(tokenizer, preamble, trajectory))
        return made[-1]

    with patch.object(rows, "training_row", training_row):
        yield made


def follow_the_literature(root: Path) -> None:
    """Train, sample and evaluate; every prompt has the literature's layout and is that of training.

    There are no rollouts: a random model writes no action.
    """
    with noted_rows() as trained:
        assert perform("sft", root).exit is Exit.DONE
    asked: dict[str, list[list[int]]] = {}
    for stage in STAGES:
        with noted_prompts() as asked[stage]:
            assert perform(stage, root, limit=1).exit is Exit.DONE
        assert asked[stage], stage
    tokenizer = load_tokenizer(context(root).base_model().folder)
    first = next(iter(sandcli.Run(root).trajectories()))
    _has_layout(tokenizer, first, trained[0], asked["sample"])
    for prompts in asked.values():
        begin = encode(tokenizer, render(tokenizer, PREAMBLE, answer=False))
        assert all(prompt[: len(begin)] == begin for prompt in prompts)


def _has_layout(tokenizer: Any, expert: Trajectory, row: TrainingRow, prompts: list[list[int]]) -> None:
    """Instruction, OK, task, then turns and observations; the row is each prompt with the expert's answer."""
    said = [*PREAMBLE, Message("user", expert.instruction)]
    for step, prompt in zip(expert.steps, sorted(prompts, key=len), strict=True):
        answer, observation = turn_messages(step)
        assert prompt == encode(tokenizer, render(tokenizer, said, answer=True))
        turn = encode(tokenizer, answer.content)
        end = len(prompt) + len(turn)
        assert row.input_ids[:end] == prompt + turn
        assert row.labels[len(prompt) : end] == turn and row.labels[len(prompt) - 1] == IGNORED
        said += [answer, observation]
    task = len(encode(tokenizer, render(tokenizer, said[:3], answer=True)))
    assert row.labels[:task] == [IGNORED] * task
