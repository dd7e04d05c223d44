"""TRL learns the same tokens from exported rows as `sand train` does."""

from collections.abc import Iterator
from pathlib import Path

import sandcli
from sandcli.engines.tokens import load_tokenizer
from sandcli.training.rows import IGNORED, TrainingRow, training_row
from tests.helpers import context, lines, make_run, perform


def test_rows_give_trl_the_same_tokens_with_loss(tiny: Path, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    root = make_run(tmp_path / "run")
    perform("collect", root, limit=2)
    file = tmp_path / "rows.jsonl"
    sandcli.export(root, file, data="expert", form="prompt-completion")
    rows = [{name: row[name] for name in ("prompt", "completion")} for row in lines(file)]
    plain = SFTConfig(str(tmp_path / "trl"), report_to="none", bf16=False, use_cpu=True, max_length=None)
    learned = SFTTrainer(str(tiny), plain, train_dataset=Dataset.from_list(rows)).train_dataset

    tokenizer = load_tokenizer(tiny)
    newline = tokenizer.encode("\n", add_special_tokens=False)
    ours = [training_row(tokenizer, context(root).preamble, each) for each in sandcli.Run(root).trajectories()]
    turns = [turn for row in ours for turn in turns_of(row)]
    assert len(turns) == len(learned) > 4
    for (ids, said), theirs in zip(turns, learned, strict=True):
        assert theirs["input_ids"] == ids + newline  # the line break that the template puts after a turn
        assert [token for token in theirs["labels"] if token != IGNORED] == said + newline


def turns_of(row: TrainingRow) -> Iterator[tuple[list[int], list[int]]]:
    """Every turn with loss, after all tokens up to its end."""
    said: list[int] = []
    for end, label in enumerate([*row.labels[1:], IGNORED], 1):
        if row.labels[end - 1] != IGNORED:
            said.append(row.labels[end - 1])
            if label == IGNORED:
                yield row.input_ids[:end], said
                said = []
